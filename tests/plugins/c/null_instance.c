/* It says that it has made an instance, and leaves it null. */
#define OWN_CREATE
#include "common.h"
static hp_status create(uint32_t kind, const hp_create *request, void **instance, const hp_reply *reply) {
    (void) kind, (void) request, (void) instance, (void) reply;
    return HP_OK;
}
HP_LIBRARY(KINDS, create, handle, destroy)
