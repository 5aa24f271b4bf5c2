/* `norm-limit`: the norm of one parameter as a metric after each epoch, and an end to the run when it stays too large. */
#include "host_plugin.h"

#include <math.h>
#include <stdlib.h>

static const char *const KINDS[] = { HP_JSON({
    "kind": "norm-limit", "version": "1.0.0", "license": "MIT OR Apache-2.0", "by_default": false,
    "summary": "Measures the norm of a parameter, and stops the run when it stays too large",
    "hooks": ["epoch_end", "save_state", "load_state"],
    "needs": [{ "hook": "epoch_end", "what": "parameters" }],
    "produces": ["parameter_norm"],
    "options": { "type": "object", "additionalProperties": false, "properties": {
        "parameter": { "type": "string", "default": "", "description": "The parameter; empty: the model's first." },
        "limit": { "type": "number", "default": 100.0, "description": "A norm above it is too large." },
        "patience": { "type": "integer", "minimum": 1, "default": 3, "description": "Epochs in a row." }
    } }
}) };

struct norm_limit {
    char parameter[256];
    double limit;
    int64_t patience;
    /* What a checkpoint holds. */
    struct { int64_t above; double largest; } state;
};

static hp_status create(uint32_t kind, const hp_create *request, void **instance, const hp_reply *reply) {
    struct norm_limit *self = (struct norm_limit *) calloc(1, sizeof *self);
    hp_status status;
    (void) kind;
    if (!self) return hp_refuse(reply, "there is no memory left");
    status = hp_option_text(request->host, "parameter", self->parameter, sizeof self->parameter, reply);
    if (status == HP_OK) status = hp_option_float(request->host, "limit", &self->limit, reply);
    if (status == HP_OK) status = hp_option_int(request->host, "patience", &self->patience, reply);
    if (status == HP_OK) *instance = self;
    else free(self);
    return status;
}

static hp_status epoch_end(struct norm_limit *self, const hp_event *event, hp_host host) {
    hp_tensor weight;
    double squares = 0;
    hp_status status = hp_read_tensor(host, "parameters", *self->parameter ? self->parameter : NULL, &weight);
    if (status != HP_OK) return status;
    for (int64_t index = 0; index < hp_tensor_length(&weight); index++)
        squares += hp_tensor_number(&weight, index) * hp_tensor_number(&weight, index);
    status = hp_put_metric(host, "parameter_norm", sqrt(squares));
    if (status != HP_OK) return status;
    if (sqrt(squares) > self->state.largest) self->state.largest = sqrt(squares);
    self->state.above = sqrt(squares) > self->limit ? self->state.above + 1 : 0;
    if (self->state.above > 0)
        status = hp_line(host, "epoch %d: the norm of %.*s is %.3f, the largest so far %.3f", (int) event->epoch,
                         (int) weight.name.length, weight.name.pointer, sqrt(squares), self->state.largest);
    if (status != HP_OK || self->state.above < self->patience) return status;
    return hp_stop(host, "the norm was above %g for %d epochs", self->limit, (int) self->patience);
}

static hp_status handle(uint32_t kind, void *instance, const hp_event *event, hp_host host) {
    struct norm_limit *self = (struct norm_limit *) instance;
    (void) kind;
    switch (event->kind) {
        case HP_EVENT_EPOCH_END: return epoch_end(self, event, host);
        case HP_EVENT_SAVE_STATE: return hp_save_state(host, &self->state, sizeof self->state);
        case HP_EVENT_LOAD_STATE: return hp_load_state(host, event, &self->state, sizeof self->state);
        default: return HP_OK;
    }
}

static hp_status destroy(uint32_t kind, void *instance) {
    (void) kind;
    free(instance);
    return HP_OK;
}

HP_LIBRARY(KINDS, create, handle, destroy)
