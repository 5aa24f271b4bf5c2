/* It says that its pointers have another size. */
#include "common.h"
CHANGED_LIBRARY(table.pointer_size = 4;)
