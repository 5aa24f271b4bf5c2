/* What the wrong plugins share: an instance that does nothing. A file that includes it says before which parts it has of
 * its own. */
#include "host_plugin.h"

static char nothing;

#ifndef OWN_CREATE
static hp_status create(uint32_t kind, const hp_create *request, void **instance, const hp_reply *reply) {
    (void) kind, (void) request, (void) reply;
    *instance = &nothing;
    return HP_OK;
}
#endif

#ifndef OWN_HANDLE
static hp_status handle(uint32_t kind, void *instance, const hp_event *event, hp_host host) {
    (void) kind, (void) instance, (void) event, (void) host;
    return HP_OK;
}
#endif

static hp_status destroy(uint32_t kind, void *instance) {
    (void) kind, (void) instance, (void) nothing;
    return HP_OK;
}

#ifndef OWN_DESCRIPTOR
static const char *const KINDS[] = { HP_JSON({
    "kind": "wrong", "version": "1.0.0", "summary": "Is wrong on purpose", "license": "MIT OR Apache-2.0",
    "hooks": ["setup"], "options": { "type": "object" }
}) };
#endif

/* A library whose table is changed by `CHANGE(table)` before it is given away. */
#define CHANGED_LIBRARY(CHANGE) \
    static hp_status describe(uint32_t index, const hp_reply *reply) { \
        (void) index; \
        reply->bytes(reply->context, hp_bytes_of(KINDS[0], strlen(KINDS[0]))); \
        return HP_OK; \
    } \
    const hp_library *host_plugin_entry(void) { \
        static hp_library table = { \
            (uint32_t) sizeof(hp_library), HP_MAJOR, HP_MAGIC, HP_MINOR, (uint32_t) sizeof(void *), \
            HP_TEXT("host_plugin.h 1.0"), HP_TEXT(HP_COMPILER), HP_TEXT(HP_TARGET), 1, 1, describe, create, handle, \
            destroy \
        }; \
        CHANGE \
        return &table; \
    }
