/* It asks for what it cannot have, and tells in each hook what the host answers: an option that there is not and one of
 * another type, a metric that there is not and one that has no value yet, a service in the wrong hook, a request that is
 * no MessagePack, and the host of a hook that has returned. */
#define OWN_DESCRIPTOR
#define OWN_CREATE
#define OWN_HANDLE
#include "common.h"
static const char *const KINDS[] = { HP_JSON({
    "kind": "wrong", "version": "1.0.0", "summary": "Is wrong on purpose", "license": "MIT OR Apache-2.0",
    "hooks": ["setup", "train_start", "epoch_start", "epoch_trained", "epoch_end", "train_end"],
    "options": { "type": "object", "properties": {
        "create": { "type": "string", "default": "" },
        "table": { "type": "object", "default": { "patience": 3 } }
    } }
}) };
static hp_host kept;
static hp_status create(uint32_t kind, const hp_create *request, void **instance, const hp_reply *reply) {
    char what[16];
    double ignored;
    hp_status status = hp_option_text(request->host, "create", what, sizeof what, reply);
    (void) kind;
    *instance = &nothing;
    if (status != HP_OK) return status;
    if (strcmp(what, "misspelled") == 0) return hp_option_float(request->host, "table.patiense", &ignored, reply);
    if (strcmp(what, "type") == 0) return hp_option_float(request->host, "create", &ignored, reply);
    if (strcmp(what, "metric") == 0) return hp_put_metric(request->host, "metric", 1.0);
    return HP_OK;
}
static hp_status handle(uint32_t kind, void *instance, const hp_event *event, hp_host host) {
    double ignored;
    int64_t patience = 0;
    (void) kind, (void) instance;
    switch (event->kind) {
        case HP_EVENT_SETUP: kept = host; return hp_read_metric(host, "val_los", &ignored);
        case HP_EVENT_TRAIN_START: return hp_read_metric(host, "val_loss", &ignored);
        case HP_EVENT_EPOCH_START: return hp_ask(host, HP_SERVICE_LOSS, hp_bytes_of(NULL, 0), NULL);
        case HP_EVENT_EPOCH_TRAINED: return hp_ask(host, HP_SERVICE_METRIC_PUT, hp_bytes_of("\xC1", 1), NULL);
        /* The service `fault` is closed to a spent host, too: the message is told with the new one. */
        case HP_EVENT_EPOCH_END:
            if (hp_put_metric(kept, "metric", 1.0) != HP_STALE) return HP_OK;
            return hp_fail(host, "the host of an earlier hook is spent");
        default:
            if (hp_option_int(host, "table.patience", &patience, NULL) != HP_OK || patience != 3) return HP_ERROR;
            return hp_ask(host, 9999, hp_bytes_of(NULL, 0), NULL);
    }
}
HP_LIBRARY(KINDS, create, handle, destroy)
