/* Its table says that it is shorter than the first version's. */
#include "common.h"
CHANGED_LIBRARY(table.size = 96;)
