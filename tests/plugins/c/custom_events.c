/* Sends the inputs of the first batch as an event, with a tensor of its own, and reads both where the event arrives. */
#define OWN_DESCRIPTOR
#define OWN_HANDLE
#include "common.h"
static const char *const KINDS[] = { HP_JSON({
    "kind": "c-events", "version": "1.0.0", "summary": "Sends itself tensors", "license": "MIT OR Apache-2.0",
    "hooks": ["step_start", "custom"], "by_default": false, "options": { "type": "object" },
    "produces": ["sent_sum", "received_sum", "received_own"]
}) };

static double sum(const hp_tensor *tensor) {
    double all = 0;
    for (int64_t index = 0; index < hp_tensor_length(tensor); index++) all += hp_tensor_number(tensor, index);
    return all;
}

static hp_status send(hp_host host) {
    float values[2] = { 1.5f, 2.0f };
    const int64_t shape[1] = { 2 };
    hp_tensor tensors[2];
    hp_status status = hp_read_tensor(host, "batch", "inputs", &tensors[0]);
    if (status != HP_OK) return status;
    tensors[1] = tensors[0];
    tensors[1].name = hp_text_of("own");
    tensors[1].tensor.data = values;
    tensors[1].tensor.byte_offset = 0;
    tensors[1].tensor.dimensions = 1;
    tensors[1].tensor.shape = shape;
    tensors[1].tensor.strides = NULL;
    status = hp_put_metric(host, "sent_sum", sum(&tensors[0]));
    return status == HP_OK ? hp_emit(host, "c_batch", hp_bytes_of("first", 5), tensors, 2) : status;
}

static hp_status receive(hp_host host, const hp_texts *texts) {
    hp_tensor inputs, own;
    if (!hp_text_is(texts->first, "c_batch")) return HP_OK;
    if (texts->bytes.length != 5) return hp_fail(host, "the payload has %d bytes", (int) texts->bytes.length);
    hp_status status = hp_read_tensor(host, "event", "inputs", &inputs);
    if (status == HP_OK) status = hp_read_tensor(host, "event", "own", &own);
    if (status == HP_OK) status = hp_put_metric(host, "received_sum", sum(&inputs));
    return status == HP_OK ? hp_put_metric(host, "received_own", sum(&own)) : status;
}

static hp_status handle(uint32_t kind, void *instance, const hp_event *event, hp_host host) {
    (void) kind, (void) instance;
    if (event->kind == HP_EVENT_CUSTOM) return receive(host, (const hp_texts *) event->data);
    return event->global_step == 1 ? send(host) : HP_OK;
}

HP_LIBRARY(KINDS, create, handle, destroy)
