/* It fails without a message: of the instance with `refuse`, of a hook without. */
#define OWN_DESCRIPTOR
#define OWN_CREATE
#define OWN_HANDLE
#include "common.h"
static const char *const KINDS[] = { HP_JSON({
    "kind": "wrong", "version": "1.0.0", "summary": "Is wrong on purpose", "license": "MIT OR Apache-2.0",
    "hooks": ["setup"],
    "options": { "type": "object", "properties": { "refuse": { "type": "boolean", "default": false } } }
}) };
static hp_status create(uint32_t kind, const hp_create *request, void **instance, const hp_reply *reply) {
    int refuse;
    const hp_status status = hp_option_bool(request->host, "refuse", &refuse, reply);
    (void) kind;
    *instance = &nothing;
    if (status != HP_OK) return status;
    return refuse ? HP_ERROR : HP_OK;
}
static hp_status handle(uint32_t kind, void *instance, const hp_event *event, hp_host host) {
    (void) kind, (void) instance, (void) event, (void) host;
    return HP_ERROR;
}
HP_LIBRARY(KINDS, create, handle, destroy)
