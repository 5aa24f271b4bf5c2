/* Its table says that it has nothing but its size. */
#include "common.h"
CHANGED_LIBRARY(table.size = 4;)
