/* What its table begins with is another number. */
#include "common.h"
CHANGED_LIBRARY(table.magic = UINT64_C(0x4E4F54504C554749);)
