/* Its descriptor is not JSON: a comma is missing. */
#define OWN_DESCRIPTOR
#include "common.h"
static const char *const KINDS[] = { "{ \"kind\": \"wrong\" \"version\": \"1.0.0\" }" };
HP_LIBRARY(KINDS, create, handle, destroy)
