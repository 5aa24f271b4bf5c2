/* It says that it may end the process. */
#include "common.h"
CHANGED_LIBRARY(table.unwinds = 0;)
