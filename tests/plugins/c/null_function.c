/* A function of its table is null. */
#include "common.h"
CHANGED_LIBRARY(table.handle = NULL;)
