/*
 * host_plugin.h: write a callback for the training host in C or C++.
 *
 * This file is the specification of the host's plugin ABI, version 1, for languages other than Rust, and all that a
 * plugin in C needs: C99 or C++17 with their standard libraries, nothing else. Build a shared library and give it to
 * the host:
 *
 *     cc -shared -fPIC -O2 -I include -o libmine.so mine.c
 *     host plugins check ./libmine.so
 *     host run RUN.toml --plugins ./libmine.so --plugin mine
 *
 * A whole plugin, which stops the run once a metric is small enough:
 *
 *     #include "host_plugin.h"
 *     #include <stdlib.h>
 *
 *     static const char *const KINDS[] = { HP_JSON({
 *         "kind": "mine", "version": "1.0.0", "summary": "Stops at a small loss", "license": "MIT",
 *         "hooks": ["epoch_end"], "reads": ["val_loss"],
 *         "options": { "type": "object", "additionalProperties": false,
 *                      "properties": { "enough": { "type": "number", "default": 0.1 } } }
 *     }) };
 *
 *     static hp_status create(uint32_t kind, const hp_create *request, void **instance, const hp_reply *reply) {
 *         double *enough = malloc(sizeof *enough);
 *         (void) kind;
 *         *instance = enough;
 *         return enough ? hp_option_float(request->host, "enough", enough, reply) : HP_ERROR;
 *     }
 *
 *     static hp_status handle(uint32_t kind, void *instance, const hp_event *event, hp_host host) {
 *         double loss;
 *         hp_status status;
 *         (void) kind;
 *         if (event->kind != HP_EVENT_EPOCH_END) return HP_OK;
 *         if ((status = hp_read_metric(host, "val_loss", &loss))) return status;
 *         return loss <= *(double *) instance ? hp_stop(host, "val_loss is %g", loss) : HP_OK;
 *     }
 *
 *     static hp_status destroy(uint32_t kind, void *instance) {
 *         (void) kind;
 *         free(instance);
 *         return HP_OK;
 *     }
 *
 *     HP_LIBRARY(KINDS, create, handle, destroy)
 *
 * Read on for the rules; then statuses, events, services, tables, MessagePack and the helpers, each in a section.
 *
 *
 * THE CONVERSATION
 *
 *   1. The host looks into the file, opens it, and calls `host_plugin_entry`, which gives the library's table. It
 *      checks magic, major version, size, pointer size, target and functions before it uses anything else of it.
 *   2. It calls `describe` for each kind: a JSON document with the kind's name, hooks and options.
 *   3. For each instance of a kind that a run has: `create`, then `handle` for each event that the descriptor's `hooks`
 *      name, then `destroy`.
 *   4. The library stays open until the process ends.
 *
 * RULES
 *
 *   - Ownership: whoever made a thing frees it. Every pointer that a function is given is borrowed, and valid until
 *     that function returns. One exception: tensors that a service gives are valid until the hook (`handle`) returns.
 *     The library's table, its texts and the host's table of services are static.
 *   - Threads: `create`, `handle` and `destroy` of one instance never overlap, and `handle` is not called again before
 *     it has returned. The thread may change between calls: a callback whose `dispatch` is `background` is called on a
 *     thread of its own. Two instances may be called at the same time, so that the library's statics need a lock.
 *   - An `hp_host` that a function is given may be used on the thread of the call, until the function returns;
 *     afterwards every call with it gives HP_STALE and does no harm. For other threads there is the service `remote`.
 *   - No exception, no longjmp and no exit may leave a function: in C++ catch everything (`catch (...)`), and tell it
 *     with `hp_fail`. Nothing protects the host from a crash; `host plugins check` finds one in a process of its own.
 *   - Texts are UTF-8 with a length in bytes, not terminated. What is not UTF-8 in a message is shown with replacement
 *     characters; elsewhere it is an error.
 *   - Signals, the terminal and the current folder are the host's: print with `hp_line` or `hp_log`.
 *
 * GROWTH
 *
 *   For the whole of major version 1, numbers, fields, their order and their meaning stay. A minor version may add
 *   events, services, statuses, descriptor keys and request keys, each with a default, and fields at the end of a table
 *   that begins with its `size`. So: ignore events and keys that you do not know, take an unknown status for HP_ERROR,
 *   and read a field that says "since 1.N" only where HP_HAS says that it is there. Set `size` of every table that you
 *   make. What is marked "Draft" promises nothing yet: it may change or go.
 *
 * This file is held to the Rust types by a test that compiles it.
 */
#ifndef HOST_PLUGIN_H
#define HOST_PLUGIN_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The ABI's version. The host refuses another major; the minor is that of the newest event or service below. */
#define HP_MAJOR 1u
#define HP_MINOR 0u

/* What a library's table begins with: "HOSTPLUG" as a big-endian number. */
#define HP_MAGIC UINT64_C(0x484F5354504C5547)

/* Whether `table`, made by the host, is long enough to have `field`. */
#define HP_HAS(table, field) \
    ((size_t) ((const char *) &(table)->field - (const char *) (table)) + sizeof((table)->field) <= (table)->size)

/* ------------------------------------------------------------------------------------------------------------ statuses
 *
 * How a call ended. A hook that returns anything but HP_OK has failed, and the run's `on_error` decides what that means:
 * it stops the run, disables the instance, or goes on. Before it returns, the hook tells why by the service `fault`
 * (`hp_fail`); the helpers of this file that fail have done so already, so that a hook returns their status.
 */
typedef uint32_t hp_status;

/* It did what it was asked. */
#define HP_OK 0u
/* It failed; the message says why. */
#define HP_ERROR 1u
/* It panicked. A hook that returns this is never called again, not even to destroy the instance. For Rust; in C and
 * C++ use HP_ERROR. */
#define HP_PANIC 2u
/* The handle was used after its function, on another thread, or a remote after the training. */
#define HP_STALE 3u
/* The receiver does not know this event, service or index. A hook that returns this and has told nothing does not know
 * its event, which is no failure. */
#define HP_UNKNOWN 4u
/* No such name; the message lists the nearest ones. */
#define HP_NO_SUCH_NAME 5u
/* Not allowed here: not in this hook, not in the background, or not by a remote. */
#define HP_NOT_ALLOWED 6u
/* The name is known, and it has no value yet. */
#define HP_NO_VALUE 7u

/* -------------------------------------------------------------------------------------------------------------- events
 *
 * `event->kind` in `handle`. The descriptor's `hooks` name those that a kind wants, in lower case and without the
 * prefix: `"epoch_end"`. Where a table is named, `event->data` points to it; elsewhere it is null.
 *
 *     setup, load_state (when resuming), train_start
 *     for each epoch:
 *         epoch_start
 *         for each step:
 *             step_start, forward and backward, gradients, clipping and optimizer, step_end; in f16, without gradients
 *             where these do not fit
 *         epoch_trained
 *         eval_start; for each batch: eval_step_start, forward, eval_step_end; eval_end
 *         epoch_end, trigger
 *         save_state, checkpoint (when one was asked for)
 *     trained, the evaluation of `test`, trigger and checkpoint at the end
 *     train_end, teardown
 *
 * A job on a saved checkpoint has `setup`, then the hooks of an evaluation, or predict_start, predict_step for each batch,
 * predict_end, or export; then `teardown`.
 *
 * The training waits for `step_start`, `gradients`, `step_end` and `epoch_trained`: they must be fast.
 */

/* Once, when the model is built and nothing is trained. */
#define HP_EVENT_SETUP 1u
/* When a run resumes, after `setup`. hp_texts: `bytes` what `save_state` gave, `first` the version of the plugin that
 * gave it. */
#define HP_EVENT_LOAD_STATE 2u
/* When a checkpoint is taken: give the state with `hp_save_state`. What is not in it is lost at a resume.
 * The same state must give the same bytes. */
#define HP_EVENT_SAVE_STATE 3u
/* Before the first epoch of this process. */
#define HP_EVENT_TRAIN_START 4u
/* After the last. hp_texts: `first` the outcome (`finished`, `stopped`, `interrupted` or `failed`),
 * `second` the reason. */
#define HP_EVENT_TRAIN_END 5u
/* Before the first step of an epoch. */
#define HP_EVENT_EPOCH_START 6u
/* Right after the last step of an epoch, before its evaluation. */
#define HP_EVENT_EPOCH_TRAINED 7u
/* After the evaluation of an epoch. */
#define HP_EVENT_EPOCH_END 8u
/* Before a step; the batch may be changed. */
#define HP_EVENT_STEP_START 9u
/* After the optimizer's update. */
#define HP_EVENT_STEP_END 10u
/* After backward, before clipping and optimizer. */
#define HP_EVENT_GRADIENTS 11u
/* Before an evaluation. hp_evaluation. */
#define HP_EVENT_EVAL_START 12u
/* Before a batch of it. hp_evaluation. */
#define HP_EVENT_EVAL_STEP_START 13u
/* After a batch of it. hp_evaluation. */
#define HP_EVENT_EVAL_STEP_END 14u
/* After an evaluation. hp_evaluation. */
#define HP_EVENT_EVAL_END 15u
/* Before the batches of a prediction job. hp_evaluation. */
#define HP_EVENT_PREDICT_START 16u
/* After a batch of it. hp_evaluation. */
#define HP_EVENT_PREDICT_STEP 17u
/* After the batches of a prediction job. hp_evaluation. */
#define HP_EVENT_PREDICT_END 18u
/* An export was asked for, of a saved checkpoint. */
#define HP_EVENT_EXPORT 19u
/* The run's schedule says so. hp_texts: `first` the cause: `epoch`, `step`, `time`, `at`, `end` or `best METRIC`. */
#define HP_EVENT_TRIGGER 20u
/* Somebody put a record. hp_texts: `first` its name, `second` its author, `third` its type, `value` of a
 * scalar. */
#define HP_EVENT_RECORD 21u
/* An event of a plugin or program. hp_texts: `first` its name, `second` its author, `bytes` the payload. Its tensors
 * are the set `event`. */
#define HP_EVENT_CUSTOM 22u
/* A checkpoint is taken. hp_texts: `first` who asked, `second` why. */
#define HP_EVENT_CHECKPOINT 23u
/* Something was published. hp_texts: `first` its kind, `second` its path, `third` its author. */
#define HP_EVENT_ARTIFACT 24u
/* A stop was asked for. hp_texts: `first` who, `second` why. */
#define HP_EVENT_STOPPING 25u
/* Something failed. hp_texts: `first` who, `second` in which hook, `third` the message. */
#define HP_EVENT_ERROR 26u
/* The end of every job, for every instance that was created. */
#define HP_EVENT_TEARDOWN 27u
/* Training is over: no step follows. Before what comes at the end, whatever ended it but a failure. */
#define HP_EVENT_TRAINED 29u
/* A checkpoint that was queued is written, or could not be. hp_texts: `first` its path, `second` what failed or empty,
 * `value` its bytes. */
#define HP_EVENT_CHECKPOINT_WRITTEN 30u

/* ------------------------------------------------------------------------------------------------------------ services
 *
 * What a hook may ask of the host: a number, a request, and a place for the reply. The helpers at the end of this file
 * do the common ones in one call each; `hp_ask` does any other.
 *
 * Request and reply are written here as {key: type}, a MessagePack map; `key?` may be left out. Types: text, int (a
 * whole number, not negative), number, bool, bytes, [type] for an array, {text: type} for a map from any text.
 * "Request: none" is an empty payload, and "Reply: none" gives no bytes. Tensors go beside the payload.
 *
 * The last line of each says:
 *   - reads or acts: what reads never changes a run;
 *   - in which hooks it may be called. "idle hooks" are all but those in which a step can be in progress: `step_start`,
 *     `gradients`, `eval_step_start`, `eval_step_end`, `record`, `custom`, `artifact` and `error`; "hooks by request"
 *     depend on what is asked for. In `create` only `option` and `fault` may be called;
 *   - background: what it does for a callback in the background: it answers from the `snapshot` that was made with the
 *     event (tensors and the loss only where the descriptor's `needs` name them), acts `later`, before the run's next
 *     event, answers at once (`direct`), or is `never` allowed;
 *   - remote: whether a remote may call it, from any thread;
 *   - ranks: in a run of several processes, whether `any` callback may call it, or only one that runs on `every` rank
 *     (`ranks = "all"` in its entry of the run file), inline, since it changes the training; "by request" depends on
 *     what is asked for: to skip an update, and to restore a copy, is for every rank.
 *
 * Sets of tensors: `parameters`, `buffers`, `optimizer`, `copy:NAME` can be read in any hook; `gradients` in
 * `gradients`, `step_end`, `trigger`; `batch` (`inputs`, `targets`, and other inputs of the data by their names) from
 * `step_start` to `step_end`, in `trigger` and in steps of an evaluation; `outputs` in `gradients`, `step_end`, `trigger`,
 * `eval_step_end`; `taps` in `gradients`, `step_end`, `trigger`, `eval_step_end`; `event` in `custom`. Written:
 * `parameters`, `buffers`, `optimizer` in idle hooks; `gradients` in `gradients`; `batch` in `step_start`; `copy:NAME` in
 * any hook. Where the run has adapters (`lora` of RUN_INFO), a callback with the hook `export` reads merged weights in
 * `parameters` and `copy:NAME`, and adapters by their names only.
 */

/* Tells why the hook fails; the last one before it returns counts. `place` is where, `file:line`.
 * Request: {message: text, place?: text}. Reply: none.
 * Acts in any hook and in `create`; background: direct; remote: no; ranks: any. */
#define HP_SERVICE_FAULT 1u
/* Gives the state.
 * Request: the bytes as they are, not MessagePack. Reply: none.
 * Acts in `save_state`; background: direct; remote: no; ranks: any. */
#define HP_SERVICE_SAVE_STATE 2u
/* Puts a metric: readable at once, and part of the history. NaN and infinities are values.
 * Request: {name: text, value: number}. Reply: none.
 * Acts in any hook; background: later; remote: no; ranks: any. */
#define HP_SERVICE_METRIC_PUT 3u
/* The latest value of each metric that has one.
 * Request: none. Reply: {text: number}.
 * Reads in any hook; background: snapshot; remote: yes; ranks: any. */
#define HP_SERVICE_METRICS 4u
/* Puts a record for the monitors. `value` has a key `type` and those of that type:
 * `scalar`: {value: number}; `histogram`: {edges: [number], counts: [number]}; `text`: {text: text};
 * `image`: {width: int, height: int, channels: int, pixels: bytes}; `table`: {columns: [text], rows: [[text]]};
 * `curve`: {x_label: text, y_label: text, x: [number], y: [number]}; `graph`: {json: text};
 * `hyper_parameters`: {values: {text: bool, number or text}}.
 * Request: {name: text, value: {type: text, ...}}. Reply: none.
 * Acts in any hook; background: direct; remote: yes; ranks: any. */
#define HP_SERVICE_RECORD_PUT 5u
/* The record that the event is about.
 * Request: none. Reply: as the request of `record_put`.
 * Reads in `record`; background: direct; remote: no; ranks: any. */
#define HP_SERVICE_RECORD 6u
/* The names in the history.
 * Request: none. Reply: [text].
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_HISTORY_NAMES 7u
/* A series of the history, oldest first.
 * Request: {name: text}. Reply: [{epoch: int, global_step: int, value: number}].
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_HISTORY_SERIES 8u
/* A series of arrays, oldest first; the last dimension is the fastest.
 * Request: {name: text}. Reply: [{epoch: int, global_step: int, shape: [int], values: [number]}].
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_HISTORY_ARRAYS 9u
/* Puts an array into the history.
 * Request: {name: text, shape: [int], values: [number]}. Reply: none.
 * Acts in any hook; background: later; remote: no; ranks: any. */
#define HP_SERVICE_ARRAY_PUT 10u
/* The hyper-parameters of each parameter group; `owners` are those whose values the schedule no longer sets.
 * Request: none. Reply: [{name: text, values: {text: number}, owners: {text: text}}].
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_HYPER_PARAMETERS 11u
/* Sets a hyper-parameter of one group, or of every group that has it. From then on the instance owns it.
 * Request: {group?: text, name: text, value: number}. Reply: none.
 * Acts in any hook; background: later; remote: no; ranks: every. */
#define HP_SERVICE_HYPER_PARAMETER_SET 12u
/* Asks the loop for something, at its next safe point: `stop`, `end_epoch`, `evaluate`, `checkpoint`, `pause`,
 * `resume` in any hook; `skip_update` in `gradients`, not in the background. The reason is shown to people.
 * Request: {action: text, reason?: text}. Reply: none.
 * Acts in hooks by request; background: later; remote: yes; ranks: by request. */
#define HP_SERVICE_CONTROL 13u
/* Names, shapes and element types (`f32`, `i64`) of a set of tensors.
 * Request: {set: text}. Reply: [{name: text, shape: [int], dtype: text}].
 * Reads in hooks by request; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_TENSOR_LIST 14u
/* Reads tensors of a set, those of `names` or all in the model's order. They are lent, not copied, and may lie on
 * an accelerator.
 * Request: {set: text, names?: [text]}. Reply: the tensors.
 * Reads in hooks by request; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_TENSOR_READ 15u
/* Writes tensors of a set: as many tensors come with the request as it has names. On an error none is written.
 * Request: {set: text, names: [text]} and the tensors. Reply: none.
 * Acts in hooks by request; background: never; remote: no; ranks: every. */
#define HP_SERVICE_TENSOR_WRITE 16u
/* Copies a tensor to the CPU.
 * Request: none, and one tensor that a service gave. Reply: one tensor.
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_TENSOR_TO_HOST 17u
/* `take`s, `restore`s or `drop`s a named copy of the weights; to restore is for idle hooks.
 * Request: {name: text, action: text}. Reply: none.
 * Acts in hooks by request; background: never; remote: no; ranks: by request. */
#define HP_SERVICE_WEIGHTS_COPY 18u
/* The same for a named copy of the whole training state: weights, optimizer, random generators.
 * Request: {name: text, action: text}. Reply: none.
 * Acts in hooks by request; background: never; remote: no; ranks: by request. */
#define HP_SERVICE_TRAINING_STATE_COPY 19u
/* Trains some updates outside the run's history, and gives their losses. The weights change. `first` is the batch of the
 * first one, from 0.
 * Request: {steps: int, first?: int}. Reply: [number].
 * Acts in idle hooks; background: never; remote: no; ranks: every. */
#define HP_SERVICE_TRAIN_STEPS 20u
/* The model's graph.
 * Request: none. Reply: JSON, not MessagePack.
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_GRAPH 21u
/* Outputs in inference mode, in f32 whatever the run's precision: of the tensor `inputs`, or of the first batches of a
 * split. `nodes` are those of the graph whose values are wanted, too. A model that takes several inputs needs a tensor of
 * each, by its name in a batch.
 * Request: {split?: text, batches?: int, nodes?: [text]}, and the tensors. Reply: the tensors `outputs`, `targets`
 * for a split, and one for each node.
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_PREDICT 22u
/* Metrics over a split, or over its first `batches`; without names the loss and those of the run's `[eval]`. `weights` is a
 * named copy.
 * Request: {split: text, metrics?: [text], weights?: text, batches?: int}. Reply: {text: number}.
 * Reads in any hook; background: never; remote: no; ranks: any. */
#define HP_SERVICE_MEASURE 23u
/* Estimates the batch-norm statistics again, over batches of a split.
 * Request: {split: text, batches: int}. Reply: none.
 * Acts in idle hooks; background: never; remote: no; ranks: every. */
#define HP_SERVICE_RECALIBRATE_BATCH_NORM 24u
/* A batch of a split, in the split's own order, from 0.
 * Request: {split: text, index: int, all?: bool}. Reply: the tensors `inputs` and `targets` and, with `all`, the other
 * inputs of the model.
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_BATCH 25u
/* Sends a custom event, delivered when the hook has returned. Tensors that the host lent in this hook are passed on as
 * they are; others must be on the CPU, and are copied if anybody listens.
 * Request: {name: text, payload?: bytes}, and any tensors, each with its `name`. Reply: none.
 * Acts in any hook; background: direct; remote: no; ranks: any. */
#define HP_SERVICE_EMIT 26u
/* Writes the checkpoint that is being taken to a folder, absolute or relative to the run folder.
 * Request: {path: text}. Reply: {path: text, bytes: int, existed: bool}.
 * Reads in `checkpoint`; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_WRITE_CHECKPOINT 27u
/* Announces something published: `best_checkpoint`, `last_checkpoint`, `metrics`, `export`, or a kind of your own.
 * Request: {kind: text, path: text}. Reply: none.
 * Acts in any hook; background: later; remote: no; ranks: any. */
#define HP_SERVICE_ARTIFACT 28u
/* What the run is. `run_file` is the resolved run file as JSON; `epochs` is 0 for a run planned in steps.
 * Request: none. Reply: {instance: text, name: text, folder: text, run_file: text, host_version: text, device: text,
 * epochs: int, steps_per_epoch: int, total_steps: int, training_samples: int, trial: bool, rank: int, world_size: int,
 * console_width: int, console_colors: bool, resumed_from: text or nil, data: {splits: {text: int}, classes: int,
 * target_names: [text], offset: [number], scale: [number], tokens: [text]}, lora?: {rank: int, alpha: number,
 * fan_in_fan_out: bool, target_modules: [text], modules_to_save: [text], tensors: [text]}}. With `lora`, the weights are
 * adapted; `tensors` are the adapters' parameters. `world_size` processes train the model together, and this is `rank` of
 * them, from 0: batches, outputs and taps in a step are of its share of the samples, and so are the metrics of an epoch in
 * progress; gradients, the loss, and the metrics of a whole epoch and of an evaluation are those of all. The `folder` of a
 * rank above 0 is `ranks/N` in the run's.
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_RUN_INFO 29u
/* Prints a line on the host's console.
 * Request: {text: text}, without a line break. Reply: none.
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_CONSOLE_LINE 30u
/* Shows a status line, with a progress from 0 to 1 where there is one; an empty text takes it away.
 * Request: {name: text, text: text, progress?: number}. Reply: none.
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_CONSOLE_STATUS 31u
/* Asks for a value to be fetched along with each step, into the set `taps`. `of`: `activation` of a node or
 * `gradient` of a parameter; `reduce`: `whole`, `mean`, `norm`, `min_max`, `histogram`, `non_finite`.
 * Request: {name: text, node: text, of: text, reduce: text}. Reply: none.
 * Acts in `setup`; background: never; remote: no; ranks: any. */
#define HP_SERVICE_TAP 32u
/* The loss of the step or evaluation batch at hand; waits for the device.
 * Request: none. Reply: number.
 * Reads in `step_end`, `gradients`, `eval_step_end`, `trigger`; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_LOSS 33u
/* A ticket that any thread may use until `train_end`, as `hp_host.ticket`.
 * Request: none. Reply: int.
 * Reads in any hook; background: direct; remote: no; ranks: any. */
#define HP_SERVICE_REMOTE 34u
/* What each hook of each callback has cost so far.
 * Request: none. Reply: [{instance: text, hook: text, background: bool, calls: int, seconds: number,
 * longest_seconds: number}].
 * Reads in any hook; background: direct; remote: no; ranks: any. */
#define HP_SERVICE_HOOK_TIMES 36u
/* The newest lines of the console, those after the number `after`; 0: all that the host has kept.
 * Request: {after: int}. Reply: [{number: int, time: number, text: text}].
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_CONSOLE_LINES 37u
/* The latest value of one metric. HP_NO_VALUE for one that the run will give and has not given yet,
 * HP_NO_SUCH_NAME for one that it does not know.
 * Request: {name: text}. Reply: number.
 * Reads in any hook; background: snapshot; remote: yes; ranks: any. */
#define HP_SERVICE_METRIC 38u
/* One option of the instance, checked against the schema, with its default filled in; `a.b` is `b` in the table
 * `a`. HP_NO_SUCH_NAME where neither run file nor schema gives one.
 * Request: {name: text}. Reply: whatever the option is.
 * Reads in any hook and in `create`; background: direct; remote: no; ranks: any. */
#define HP_SERVICE_OPTION 39u
/* The latest value of each metric, with the position at which it was measured: one of an earlier step than the event's
 * belongs to other weights.
 * Request: none. Reply: {text: {epoch: int, global_step: int, value: number}}.
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_METRIC_POINTS 40u
/* The latest array of each series of arrays, such as a confusion matrix.
 * Request: none. Reply: {text: {epoch: int, global_step: int, shape: [int], values: [number]}}.
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_LATEST_ARRAYS 41u
/* After which step the model's weights were those of the training, and what was measured of them. A callback may have
 * restored earlier ones.
 * Request: none. Reply: {epoch: int, global_step: int, metrics: {text: number}}.
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_WEIGHTS_INFO 42u
/* What was recorded of the time of steps since the last call; records from now on what the request says. It costs nothing
 * until somebody asks.
 * Request: {record: "off", "phases" or "operators"}.
 * Reply: [{name: text, kind: "phase" or "operator", step: int, began: int, nanoseconds: int}], both times in nanoseconds.
 * Reads in any hook; background: never; remote: no; ranks: any. */
#define HP_SERVICE_PROFILE 47u
/* The hook waits on purpose, such as for a person: `hook_warning` and `hook_timeout` count from now on again.
 * Request: none. Reply: none.
 * Reads in any hook; background: direct; remote: no; ranks: any. */
#define HP_SERVICE_KEEP_ALIVE 48u
/* Freezes the parameters that the patterns fit, in which `*` stands for any text, or lets frozen ones learn again. A batch
 * norm all of whose parameters are frozen keeps its statistics, unless they are `moving_statistics`. Checkpoints hold what
 * is frozen. Weights beside the adapters of `[model] lora` stay frozen.
 * Request: {patterns: [text], frozen: bool, moving_statistics?: bool}. Reply: none.
 * Acts in idle hooks; background: never; remote: no; ranks: every. */
#define HP_SERVICE_FREEZE 44u
/* Takes only the first `batches` of a split in each evaluation, and of `train` in each epoch after the one in progress; all
 * again without it. A resumed run asks again.
 * Request: {split: text, batches?: int}. Reply: none.
 * Acts in idle hooks; background: never; remote: no; ranks: every. */
#define HP_SERVICE_LIMIT_BATCHES 45u
/* Reads other data, a file or a folder in the format of the run's own, as that was read, and adds it as a split, which the
 * services for splits then know. `path` is absolute or relative to the run folder.
 * Request: {name: text, path: text}. Reply: none.
 * Acts in `setup`; background: never; remote: no; ranks: any. */
#define HP_SERVICE_OPEN_SPLIT 46u
/* The value of an expression, in the language of the run file's `if`. `variables` are the caller's own names in it; any
 * other name is a position or a metric. With `actions` it is actions, which are not done but returned.
 * Request: {expression: text, variables?: {text: number}, actions?: bool}. Reply: number, bool or text; of actions
 * [{stop: {reason: text}} or {checkpoint: {}} or {log: {text: text}} or {put: {name: text, value: number}} or
 * {set: {name: text, group: text or nil, value: number}}].
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_EVALUATE 43u
/* Copies the checkpoint that is being taken, and writes it on a thread of the host after those that were queued before;
 * `checkpoint_written` tells the end. Leaves out those of `instead_of` whose writing has not begun, and answers which.
 * Request: {path: text, instead_of: [text]}. Reply: [text].
 * Reads in `checkpoint`; background: never; remote: no; ranks: any. */
#define HP_SERVICE_QUEUE_CHECKPOINT 49u
/* Forgets every value and array of a name, and its latest value. It may get new ones; a name without any is no error.
 * Request: {name: text}. Reply: none.
 * Acts in any hook; background: later; remote: no; ranks: any. */
#define HP_SERVICE_HISTORY_REMOVE 50u
/* The newest point of a series of the history: `NO_SUCH_NAME` if it has none.
 * Request: {name: text}. Reply: {epoch: int, global_step: int, value: number}.
 * Reads in any hook; background: snapshot; remote: no; ranks: any. */
#define HP_SERVICE_HISTORY_LATEST 51u

/* ----------------------------------------------------------------------------------------------------------- tables */

/* UTF-8 text, borrowed. To print one: printf("%.*s", (int) text.length, text.pointer). `pointer` may be null when
 * `length` is 0. */
typedef struct hp_text {
    const char *pointer;
    size_t length; /* bytes, not characters */
} hp_text;

/* Bytes, borrowed. `pointer` may be null when `length` is 0. */
typedef struct hp_bytes {
    const uint8_t *pointer;
    size_t length;
} hp_bytes;

/* The element type of a tensor, as DLPack writes it. */
typedef struct hp_data_type {
    uint8_t code; /* 0 signed integer, 1 unsigned integer, 2 float, 4 bfloat, 6 bool */
    uint8_t bits; /* of one element */
    uint16_t lanes; /* 1 */
} hp_data_type;

/* Where a tensor lies, as DLPack writes it. */
typedef struct hp_device {
    int32_t kind; /* 1 CPU, 2 CUDA, 8 Metal */
    int32_t index;
} hp_device;

/* A tensor in DLPack's layout (DLTensor), borrowed. */
typedef struct hp_dl_tensor {
    void *data; /* null for a tensor without elements; the device's stream is synchronized */
    hp_device device;
    int32_t dimensions;
    hp_data_type dtype;
    const int64_t *shape; /* `dimensions` sizes */
    const int64_t *strides; /* as many, in elements; null: contiguous, the last dimension fastest */
    uint64_t byte_offset; /* of the first element, from `data` */
} hp_dl_tensor;

/* A named tensor. Lent by the host: valid until the hook returns. Given to the host: until the call returns. */
typedef struct hp_tensor {
    uint32_t size; /* sizeof(hp_tensor) as its maker knows it */
    uint32_t flags; /* bit 0: read only */
    hp_text name;
    hp_dl_tensor tensor;
} hp_tensor;

/* Where `describe`, `create` and a service put their answer. Borrowed until the call returns. */
typedef struct hp_reply {
    uint32_t size;
    uint32_t reserved; /* 0 */
    void *context; /* passed to the functions */
    /* Takes the answer: called at most once, before the call returns. The bytes are borrowed until it returns. */
    void (*bytes)(void *context, hp_bytes bytes);
    /* Takes one tensor: called once for each. `tensor` itself is borrowed until it returns, what it points to until
     * the hook returns. */
    void (*tensor)(void *context, const hp_tensor *tensor);
} hp_reply;

/* A service's request. Borrowed until the call returns. */
typedef struct hp_request {
    uint32_t size;
    uint32_t tensor_count;
    hp_bytes payload; /* MessagePack, or empty */
    const hp_tensor *tensors; /* `tensor_count` of them, `tensor_size` bytes apart */
    uint32_t tensor_size; /* sizeof(hp_tensor) */
    uint32_t reserved; /* 0 */
} hp_request;

/* The host's services. Static. */
typedef struct hp_services {
    uint32_t size;
    uint32_t minor; /* the host's */
    /* Calls a service, as `hp_call` does. On failure `reply->bytes` gets {message: text, place: text}. */
    hp_status (*call)(uint64_t ticket, uint32_t service, const hp_request *request, const hp_reply *reply);
} hp_services;

/* The way to the host during one call: passed by value, spent when the function that was given it returns. */
typedef struct hp_host {
    const hp_services *table;
    uint64_t ticket; /* never the same twice in a process */
} hp_host;

/* One log record. Borrowed until the log function returns. */
typedef struct hp_log_record {
    uint32_t size;
    uint32_t level; /* HP_LOG_... */
    hp_text target; /* the module that logs */
    hp_text message;
} hp_log_record;

#define HP_LOG_ERROR 1u
#define HP_LOG_WARNING 2u
#define HP_LOG_INFORMATION 3u
#define HP_LOG_DEBUG 4u
#define HP_LOG_TRACE 5u

/* Takes a log record: from any thread, until the process ends. */
typedef void (*hp_log_function)(const hp_log_record *record);

/* What `create` is given. Borrowed until it returns. */
typedef struct hp_create {
    uint32_t size;
    uint32_t minor; /* the host's */
    hp_text options; /* all of them as a JSON object; `hp_option_...` reads one without a parser */
    hp_text instance; /* its name */
    hp_log_function log; /* keep it for `hp_log` */
    hp_host host; /* for the service `option`; spent when `create` returns */
} hp_create;

/* One event. Borrowed until `handle` returns. */
typedef struct hp_event {
    uint32_t size;
    uint32_t kind; /* HP_EVENT_... */
    uint64_t epoch; /* the epoch in progress, from 1; 0 before the first */
    uint64_t step; /* the step within the epoch, from 1; 0 before the first */
    uint64_t global_step; /* optimizer updates since the run began */
    uint64_t samples; /* training samples seen since the run began */
    const void *data; /* the table that belongs to `kind`, or null; borrowed as the event */
} hp_event;

/* The data of `eval_start`, `eval_step_start`, `eval_step_end`, `eval_end`. */
typedef struct hp_evaluation {
    uint32_t size;
    uint32_t mid_epoch; /* 1 when the evaluation interrupts an epoch */
    hp_text split;
    uint64_t batch; /* from 1; 0 for start and end */
    uint64_t batches;
} hp_evaluation;

/* The data of the events that carry texts; each event says which. */
typedef struct hp_texts {
    uint32_t size;
    uint32_t number;
    hp_text first;
    hp_text second;
    hp_text third;
    hp_bytes bytes;
    double value;
} hp_texts;

/* What a library offers. Static, and the same at each call of `host_plugin_entry`. HP_LIBRARY makes it. */
typedef struct host_plugin_library {
    uint32_t size; /* sizeof(hp_library) */
    uint32_t major; /* HP_MAJOR */
    uint64_t magic; /* HP_MAGIC */
    uint32_t minor; /* HP_MINOR */
    uint32_t pointer_size; /* sizeof(void *) */
    hp_text sdk; /* what the library was written with */
    hp_text compiler;
    hp_text target; /* HP_TARGET */
    uint32_t unwinds; /* 1: no function of the library ends the process or lets an exception out */
    uint32_t kinds; /* how many kinds there are; `index` below is less */
    /* Gives kind `index`'s descriptor, JSON, to `reply->bytes`. Any thread, any time. No service may be called.
     *
     * Keys, of which only `kind` is required: `kind` ([a-z0-9-]+, the name in run files), `version`, `summary` (a
     * line), `license` (an SPDX expression), `hooks` ([event]), `needs` ([{hook?, what, write?}]: what hooks read
     * beyond position and metrics, or write: a set of tensors, `training_state` or the name of a service; what a
     * callback in the background does not name it cannot read), `requires_minor` (the least minor version that it
     * works with), `options` (a JSON Schema with defaults; the formats `metric`, `produced-metric`,
     * `expression`, `actions`, `output-file`, `output-folder` and `output-name` say what a text names, so that the host checks it before the training), `when`
     * (when `trigger` comes: {every: "5 epochs"}), `dispatch` (`inline` or `background`), `by_default` (true: it runs
     * without being named; the default is true), `produces` ([metric], `*` for any text) and `reads` ([metric]),
     * `ranks` (`zero` or `all`: on which ranks of a run of several processes it works by default; what changes the
     * training says `all`, or else the host refuses it there). Unknown keys are ignored. */
    hp_status (*describe)(uint32_t index, const hp_reply *reply);
    /* Makes an instance of kind `index` and writes a pointer to it, not null, to `*instance`: the host only passes
     * it back. The options satisfy the schema. On failure give the message to `reply->bytes` (`hp_refuse`) and free
     * what was made: `destroy` is not called. One thread at a time; only the service `option` may be called. */
    hp_status (*create)(uint32_t index, const hp_create *request, void **instance, const hp_reply *reply);
    /* Handles one event. May call services with `host`. Never called for one instance from two threads at a time. */
    hp_status (*handle)(uint32_t index, void *instance, const hp_event *event, hp_host host);
    /* Ends an instance and frees it: called once, after the last `handle`. No service may be called. */
    hp_status (*destroy)(uint32_t index, void *instance);
} hp_library;

/* ------------------------------------------------------------------------------------------------- making a library */

#ifdef _WIN32
#define HP_EXPORT __declspec(dllexport)
#else
#define HP_EXPORT __attribute__((visibility("default")))
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define HP_ARCHITECTURE "x86_64"
#elif defined(__aarch64__) || defined(_M_ARM64)
#define HP_ARCHITECTURE "aarch64"
#else
#define HP_ARCHITECTURE "unknown"
#endif

#if defined(_WIN32)
#define HP_SYSTEM "pc-windows"
#elif defined(__APPLE__)
#define HP_SYSTEM "apple-darwin"
#elif defined(__linux__) && !defined(__ANDROID__)
#define HP_SYSTEM "unknown-linux"
#else
#define HP_SYSTEM "unknown"
#endif

/* The host compares the words for processor and system with its own, and takes `unknown` for a match. */
#define HP_TARGET HP_ARCHITECTURE "-" HP_SYSTEM

#if defined(__clang__)
#define HP_COMPILER __VERSION__
#elif defined(__GNUC__)
#define HP_COMPILER "gcc " __VERSION__
#else
#define HP_COMPILER "another compiler"
#endif

/* A descriptor as a C string: HP_JSON({ "kind": "mine" }) is "{ \"kind\": \"mine\" }". */
#define HP_JSON(...) #__VA_ARGS__

/* The initializer of an hp_text from a string literal. */
#define HP_TEXT(literal) { literal, sizeof(literal) - 1 }

/* What the host looks for in a library: gives the library's table, static and never null. Any thread. */
HP_EXPORT const hp_library *host_plugin_entry(void);

/* Defines `host_plugin_entry`, once in a library. `descriptors` is an array of C strings, one for each kind; the
 * functions are those of hp_library. */
#define HP_LIBRARY(descriptors, create, handle, destroy) \
    static hp_status hp_describe(uint32_t index, const hp_reply *reply) { \
        if (index >= sizeof(descriptors) / sizeof((descriptors)[0])) return HP_UNKNOWN; \
        reply->bytes(reply->context, hp_bytes_of((descriptors)[index], strlen((descriptors)[index]))); \
        return HP_OK; \
    } \
    const hp_library *host_plugin_entry(void) { \
        static const hp_library library = { \
            (uint32_t) sizeof(hp_library), HP_MAJOR, HP_MAGIC, HP_MINOR, \
            (uint32_t) sizeof(void *), HP_TEXT("host_plugin.h 1.0"), HP_TEXT(HP_COMPILER), \
            HP_TEXT(HP_TARGET), 1, (uint32_t) (sizeof(descriptors) / sizeof((descriptors)[0])), \
            hp_describe, create, handle, destroy \
        }; \
        return &library; \
    }

/* --------------------------------------------------------------------------------------------------- texts and formats
 *
 * From here on: helpers, all of them inline. None allocates, keeps anything, or has a state of its own. A name that
 * ends in `_` is for the others.
 */

/* Bytes at `pointer`, borrowed. */
static inline hp_bytes hp_bytes_of(const void *pointer, size_t length) {
    const hp_bytes bytes = { (const uint8_t *) pointer, length };
    return bytes;
}

/* A C string as a text, borrowed. */
static inline hp_text hp_text_of(const char *string) {
    const hp_text text = { string, strlen(string) };
    return text;
}

/* Whether a text is this C string. */
static inline int hp_text_is(hp_text text, const char *string) {
    return text.length == strlen(string) && (text.length == 0 || memcmp(text.pointer, string, text.length) == 0);
}

/* Bytes of a message that `hp_line` and its like format as printf does; what is longer is cut. */
#define HP_MESSAGE 1024

#ifdef __GNUC__
#define HP_PRINTF_(words, first) __attribute__((format(printf, words, first)))
#else
#define HP_PRINTF_(words, first)
#endif

static inline hp_text hp_formatted_(char *buffer, const char *format, va_list arguments) {
    if (vsnprintf(buffer, HP_MESSAGE, format, arguments) < 0) *buffer = 0;
    hp_text text = hp_text_of(buffer);
    /* A character of several bytes that may have been cut: they begin with 11, and the others with 10. */
    if (text.length == HP_MESSAGE - 1)
        while (text.length > 0 && (buffer[text.length - 1] & 0x80) && (buffer[--text.length] & 0xC0) == 0x80) continue;
    return text;
}

/* Declares the text `name`, and formats the arguments after `format` into it. */
#define HP_FORMAT_(name, format) \
    char name##_buffer[HP_MESSAGE]; \
    va_list name##_arguments; \
    va_start(name##_arguments, format); \
    const hp_text name = hp_formatted_(name##_buffer, format, name##_arguments); \
    va_end(name##_arguments)

/* ------------------------------------------------------------------------------------------------- writing MessagePack
 *
 * A packer writes into memory of yours. A map is `hp_pack_map` with the number of its keys, then each key, a text, and
 * its value; an array is `hp_pack_array` with the number of its values, then those. `hp_ask` refuses what did not fit.
 *
 *     uint8_t memory[256];
 *     hp_packer request = hp_packer_of(memory, sizeof memory);
 *     hp_pack_map(&request, 2);
 *     hp_pack_text(&request, "split");
 *     hp_pack_text(&request, "val");
 *     hp_pack_text(&request, "batches");
 *     hp_pack_int(&request, 10);
 *     status = hp_ask(host, HP_SERVICE_RECALIBRATE_BATCH_NORM, hp_packed(&request), NULL);
 *
 * The host reads every encoding that MessagePack has for a value, the shortest or another, and an integer where a
 * number is wanted.
 */
typedef struct hp_packer {
    uint8_t *memory;
    size_t capacity;
    size_t length; /* more than `capacity` when it did not fit */
} hp_packer;

/* An empty packer on `capacity` bytes, which stay yours. */
static inline hp_packer hp_packer_of(void *memory, size_t capacity) {
    const hp_packer packer = { (uint8_t *) memory, capacity, 0 };
    return packer;
}

/* What was packed, in the packer's memory; of the length SIZE_MAX when it did not fit. */
static inline hp_bytes hp_packed(const hp_packer *packer) {
    return hp_bytes_of(packer->memory, packer->length > packer->capacity ? SIZE_MAX : packer->length);
}

static inline void hp_pack_raw_(hp_packer *packer, const void *bytes, size_t length) {
    const size_t start = packer->length;
    packer->length += length;
    if (length > 0 && packer->length <= packer->capacity) memcpy(packer->memory + start, bytes, length);
}

/* A marker and the low `width` bytes of `value`, the highest first. */
static inline void hp_pack_head_(hp_packer *packer, uint8_t marker, uint64_t value, int width) {
    uint8_t bytes[9] = { marker };
    for (int index = width; index > 0; index--, value >>= 8) bytes[index] = (uint8_t) value;
    hp_pack_raw_(packer, bytes, (size_t) width + 1);
}

/* A map of `keys` keys, each followed by its value. */
static inline void hp_pack_map(hp_packer *packer, uint32_t keys) { hp_pack_head_(packer, 0xDF, keys, 4); }

/* An array of `values` values, which follow. */
static inline void hp_pack_array(hp_packer *packer, uint32_t values) { hp_pack_head_(packer, 0xDD, values, 4); }

static inline void hp_pack_text_of(hp_packer *packer, hp_text text) {
    hp_pack_head_(packer, 0xDB, text.length, 4);
    hp_pack_raw_(packer, text.pointer, text.length);
}

static inline void hp_pack_text(hp_packer *packer, const char *string) { hp_pack_text_of(packer, hp_text_of(string)); }

static inline void hp_pack_bytes(hp_packer *packer, const void *bytes, size_t length) {
    hp_pack_head_(packer, 0xC6, length, 4);
    hp_pack_raw_(packer, bytes, length);
}

/* NaN and infinities are values. */
static inline void hp_pack_number(hp_packer *packer, double number) {
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    hp_pack_head_(packer, 0xCB, bits, 8);
}

static inline void hp_pack_int(hp_packer *packer, int64_t number) { hp_pack_head_(packer, 0xD3, (uint64_t) number, 8); }

static inline void hp_pack_bool(hp_packer *packer, int yes) { hp_pack_head_(packer, yes ? 0xC3 : 0xC2, 0, 0); }

/* ------------------------------------------------------------------------------------------------- reading MessagePack
 *
 * An unpacker is a place in bytes that somebody else owns. `hp_unpack` reads the value there and moves on; the values
 * of an array and the keys and values of a map come one after the other after its header. Copy an unpacker to come back
 * to its place.
 *
 * Which encodings come from the host: integers in the shortest form; a number (`number` above) as a float of 64 bits,
 * in `values`, `offset` and `scale` as one of 32 bits, and in an option also as an integer; text as `str`, bytes as
 * `bin`, maps and arrays with the shortest header. `hp_item` has a number in `number`, whichever of these came.
 */
typedef struct hp_unpacker {
    const uint8_t *at;
    const uint8_t *end;
} hp_unpacker;

/* Types of a value. */
#define HP_ITEM_NIL 0u
#define HP_ITEM_BOOL 1u
#define HP_ITEM_INTEGER 2u
#define HP_ITEM_FLOAT 3u
#define HP_ITEM_TEXT 4u
#define HP_ITEM_BYTES 5u
#define HP_ITEM_ARRAY 6u
#define HP_ITEM_MAP 7u

/* A value, or the header of an array or map. */
typedef struct hp_item {
    uint32_t type; /* HP_ITEM_... */
    double number; /* of an integer or float */
    int64_t integer; /* the same where it is whole; 0 or 1 of a bool */
    uint64_t count; /* how many values an array has, or keys a map; an integer that is not negative */
    hp_text text; /* of a text; borrowed from what is unpacked */
    hp_bytes bytes; /* of a text or bytes; borrowed from what is unpacked */
} hp_item;

/* An unpacker at the beginning of `bytes`. */
static inline hp_unpacker hp_unpacker_of(hp_bytes bytes) {
    const hp_unpacker unpacker = { bytes.pointer, bytes.length ? bytes.pointer + bytes.length : bytes.pointer };
    return unpacker;
}

/* Reads the next value and gives 1; at the end, and for what is cut or no MessagePack, gives 0 and stays. */
static inline int hp_unpack(hp_unpacker *unpacker, hp_item *item) {
    const uint8_t *at = unpacker->at;
    uint64_t value = 0;
    int width = 0, is_signed = 0;
    memset(item, 0, sizeof *item);
    if (at == unpacker->end) return 0;
    const int m = *at++;
    if (m <= 0x7F || m >= 0xE0) item->type = HP_ITEM_INTEGER, at--, width = 1, is_signed = 1;
    else if (m <= 0x8F) item->type = HP_ITEM_MAP, value = m & 0x0F;
    else if (m <= 0x9F) item->type = HP_ITEM_ARRAY, value = m & 0x0F;
    else if (m <= 0xBF) item->type = HP_ITEM_TEXT, value = m & 0x1F;
    else if (m == 0xC0) item->type = HP_ITEM_NIL;
    else if (m == 0xC2 || m == 0xC3) item->type = HP_ITEM_BOOL, value = m & 1;
    else if (m >= 0xC4 && m <= 0xC6) item->type = HP_ITEM_BYTES, width = 1 << (m - 0xC4);
    else if (m == 0xCA || m == 0xCB) item->type = HP_ITEM_FLOAT, width = 4 << (m - 0xCA);
    else if (m >= 0xCC && m <= 0xCF) item->type = HP_ITEM_INTEGER, width = 1 << (m - 0xCC);
    else if (m >= 0xD0 && m <= 0xD3) item->type = HP_ITEM_INTEGER, width = 1 << (m - 0xD0), is_signed = 1;
    else if (m >= 0xD9 && m <= 0xDB) item->type = HP_ITEM_TEXT, width = 1 << (m - 0xD9);
    else if (m >= 0xDC && m <= 0xDD) item->type = HP_ITEM_ARRAY, width = 2 << (m - 0xDC);
    else if (m >= 0xDE) item->type = HP_ITEM_MAP, width = 2 << (m - 0xDE);
    else return 0;
    if (unpacker->end - at < width) return 0;
    if (is_signed && (*at & 0x80)) value = UINT64_MAX;
    for (; width > 0; width--) value = value << 8 | *at++;
    memcpy(&item->integer, &value, sizeof value);
    item->count = value;
    item->number = is_signed ? (double) item->integer : (double) value;
    if (item->type == HP_ITEM_FLOAT) {
        const uint32_t low = (uint32_t) value;
        float narrow;
        memcpy(&narrow, &low, sizeof narrow);
        memcpy(&item->number, &value, sizeof value);
        if (m == 0xCA) item->number = (double) narrow;
        item->integer = item->number > -9e18 && item->number < 9e18 ? (int64_t) item->number : 0;
    } else if (item->type == HP_ITEM_TEXT || item->type == HP_ITEM_BYTES) {
        if ((uint64_t) (unpacker->end - at) < value) return 0;
        item->bytes = hp_bytes_of(at, (size_t) value);
        item->text.pointer = (const char *) at;
        item->text.length = (size_t) value;
        at += value;
    }
    unpacker->at = at;
    return 1;
}

/* Passes over one value with all that is in it. */
static inline int hp_skip(hp_unpacker *unpacker) {
    hp_item item;
    for (uint64_t left = 1; left > 0; left--) {
        if (!hp_unpack(unpacker, &item)) return 0;
        if (item.type >= HP_ITEM_ARRAY) left += item.type == HP_ITEM_MAP ? 2 * item.count : item.count;
    }
    return 1;
}

/* Reads the value of `key` in the map at `map`; 0 when it has none. `value` may be `map`, for a map in a map. */
static inline int hp_find(hp_unpacker map, const char *key, hp_unpacker *value) {
    hp_item item;
    if (!hp_unpack(&map, &item) || item.type != HP_ITEM_MAP) return 0;
    for (uint64_t left = item.count; left > 0; left--) {
        if (!hp_unpack(&map, &item)) return 0;
        *value = map;
        if (item.type == HP_ITEM_TEXT && hp_text_is(item.text, key)) return 1;
        if (!hp_skip(&map)) return 0;
    }
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- calling services
 *
 * All of these are for `handle`, on its thread, with the `host` that it was given; each service says where it is
 * allowed. In `create` there are `hp_option_...` and `hp_refuse`. What they are given is borrowed until they return.
 */

/* Calls a service with a payload and `count` tensors, and gives its answer to `reply`: all that an ABI call is. */
static inline hp_status hp_call(hp_host host, uint32_t service, hp_bytes payload, const hp_tensor *tensors,
                                uint32_t count, const hp_reply *reply) {
    const hp_request request = { (uint32_t) sizeof(hp_request), count, payload, tensors,
                                 (uint32_t) sizeof(hp_tensor), 0 };
    return host.table->call(host.ticket, service, &request, reply);
}

/* An answer, kept in memory of yours. `value` points into `bytes`: use it where it is. */
typedef struct hp_answer {
    hp_item value; /* the first value of the answer; unless that is an array or a map, there is no other */
    uint32_t tensors; /* how many came */
    hp_tensor tensor; /* the first of them; what it points to is valid until the hook returns */
    size_t length; /* of the whole answer, of which `bytes` has the beginning */
    uint8_t bytes[4096];
} hp_answer;

/* An unpacker at the beginning of an answer. */
static inline hp_unpacker hp_answered(const hp_answer *answer) {
    const size_t kept = answer->length < sizeof answer->bytes ? answer->length : sizeof answer->bytes;
    return hp_unpacker_of(hp_bytes_of(answer->bytes, kept));
}

static inline void hp_take_bytes_(void *context, hp_bytes bytes) {
    hp_answer *answer = (hp_answer *) context;
    answer->length = bytes.length;
    if (bytes.length > 0)
        memcpy(answer->bytes, bytes.pointer, bytes.length < sizeof answer->bytes ? bytes.length : sizeof answer->bytes);
}

static inline void hp_take_tensor_(void *context, const hp_tensor *tensor) {
    hp_answer *answer = (hp_answer *) context;
    if (answer->tensors++ == 0)
        memcpy(&answer->tensor, tensor, tensor->size < sizeof *tensor ? tensor->size : sizeof *tensor);
}

static inline hp_status hp_tell_(hp_host host, const hp_reply *reply, hp_status status, hp_text message);

static inline hp_status hp_ask_(hp_host host, uint32_t service, hp_bytes request, const hp_tensor *tensors,
                                uint32_t count, hp_answer *answer, const hp_reply *reply) {
    const hp_reply place = { (uint32_t) sizeof(hp_reply), 0, answer, hp_take_bytes_, hp_take_tensor_ };
    hp_text message = hp_text_of("a service failed without a message that can be read");
    memset(answer, 0, offsetof(hp_answer, bytes));
    if (request.length == SIZE_MAX) return hp_tell_(host, reply, HP_ERROR, hp_text_of("the request did not fit"));
    const hp_status status = hp_call(host, service, request, tensors, count, &place);
    hp_unpacker words = hp_answered(answer);
    if (status != HP_OK && !hp_find(words, "message", &words)) words.at = words.end;
    if (hp_unpack(&words, &answer->value) && answer->value.type == HP_ITEM_TEXT) message = answer->value.text;
    if (status == HP_OK || service == HP_SERVICE_FAULT) return status;
    return hp_tell_(host, reply, status, message);
}

/* A request of one text or two. */
static inline hp_status hp_ask_texts_(hp_host host, uint32_t service, const char *key, hp_text text,
                                      const char *other_key, const char *other_text, hp_answer *answer,
                                      const hp_reply *reply) {
    uint8_t memory[2 * HP_MESSAGE];
    hp_packer request = hp_packer_of(memory, sizeof memory);
    hp_pack_map(&request, other_key ? 2 : 1);
    hp_pack_text(&request, key);
    hp_pack_text_of(&request, text);
    if (other_key) hp_pack_text(&request, other_key);
    if (other_key) hp_pack_text(&request, other_text);
    return hp_ask_(host, service, hp_packed(&request), NULL, 0, answer, reply);
}

/* Says why a call fails: in `create` to its reply, in a hook (`reply` is null) by the service `fault`. */
static inline hp_status hp_tell_(hp_host host, const hp_reply *reply, hp_status status, hp_text message) {
    hp_answer ignored;
    if (message.length > HP_MESSAGE) message.length = HP_MESSAGE;
    if (reply) reply->bytes(reply->context, hp_bytes_of(message.pointer, message.length));
    else hp_ask_texts_(host, HP_SERVICE_FAULT, "message", message, NULL, NULL, &ignored, NULL);
    return status;
}

/* Calls any service with a request (`hp_packed`, or no bytes) and keeps the answer; null for none. When it fails,
 * the host has been told the message, so that a hook may return the status as it is; a hook that can do without
 * returns HP_OK, and the message is forgotten. */
static inline hp_status hp_ask(hp_host host, uint32_t service, hp_bytes request, hp_answer *answer) {
    hp_answer ignored;
    return hp_ask_(host, service, request, NULL, 0, answer ? answer : &ignored, NULL);
}

/* In `handle`: tells why the hook fails, and gives HP_ERROR for it to return. */
HP_PRINTF_(2, 3)
static inline hp_status hp_fail(hp_host host, const char *format, ...) {
    HP_FORMAT_(message, format);
    return hp_tell_(host, NULL, HP_ERROR, message);
}

/* In `create`: tells why no instance is made, and gives HP_ERROR for it to return. */
HP_PRINTF_(2, 3)
static inline hp_status hp_refuse(const hp_reply *reply, const char *format, ...) {
    HP_FORMAT_(message, format);
    reply->bytes(reply->context, hp_bytes_of(message.pointer, message.length));
    return HP_ERROR;
}

/* ------------------------------------------------------------------------------------------------------------- options
 *
 * One option of the instance by its name; `a.b` is `b` in the table `a`. In `create` pass `request->host` and `reply`,
 * which gets the message of a failure; in `handle` pass its `host` and null. `*value` is written only when the status
 * is HP_OK. For an option that is null (nil), a table or an array, ask for HP_SERVICE_OPTION.
 */
static inline hp_status hp_option_(hp_host host, const char *name, const char *what, uint32_t first_type,
                                   uint32_t last_type, hp_answer *answer, const hp_reply *reply) {
    char buffer[HP_MESSAGE];
    const hp_text text = hp_text_of(name);
    const hp_status status = hp_ask_texts_(host, HP_SERVICE_OPTION, "name", text, NULL, NULL, answer, reply);
    const uint32_t type = answer->value.type;
    if (status != HP_OK || (type >= first_type && type <= last_type)) return status;
    snprintf(buffer, sizeof buffer, "the option `%.200s` is not %s", name, what);
    return hp_tell_(host, reply, HP_ERROR, hp_text_of(buffer));
}

/* A whole number. */
static inline hp_status hp_option_int(hp_host host, const char *name, int64_t *value, const hp_reply *reply) {
    hp_answer answer;
    const hp_status status = hp_option_(host, name, "a whole number", HP_ITEM_INTEGER, HP_ITEM_INTEGER, &answer, reply);
    if (status == HP_OK) *value = answer.value.integer;
    return status;
}

/* A number, written with a point or without. */
static inline hp_status hp_option_float(hp_host host, const char *name, double *value, const hp_reply *reply) {
    hp_answer answer;
    const hp_status status = hp_option_(host, name, "a number", HP_ITEM_INTEGER, HP_ITEM_FLOAT, &answer, reply);
    if (status == HP_OK) *value = answer.value.number;
    return status;
}

/* A bool: 0 or 1. */
static inline hp_status hp_option_bool(hp_host host, const char *name, int *value, const hp_reply *reply) {
    hp_answer answer;
    const hp_status status = hp_option_(host, name, "true or false", HP_ITEM_BOOL, HP_ITEM_BOOL, &answer, reply);
    if (status == HP_OK) *value = (int) answer.value.integer;
    return status;
}

/* A text, copied into `buffer` of `capacity` bytes as a C string; one that does not fit is an error. */
static inline hp_status hp_option_text(hp_host host, const char *name, char *buffer, size_t capacity,
                                       const hp_reply *reply) {
    hp_answer answer;
    const hp_status status = hp_option_(host, name, "a text", HP_ITEM_TEXT, HP_ITEM_TEXT, &answer, reply);
    const hp_text text = answer.value.text;
    if (status != HP_OK) return status;
    if (text.length >= capacity) return hp_tell_(host, reply, HP_ERROR, hp_text_of("an option's text is too long"));
    memcpy(buffer, text.pointer, text.length);
    buffer[text.length] = 0;
    return HP_OK;
}

/* -------------------------------------------------------------------------------------- metrics, control, console, log
 *
 * `format` and what follows are as for printf: a message of at most HP_MESSAGE bytes, without a line break.
 */

/* Puts a metric: readable at once, and part of the history. */
static inline hp_status hp_put_metric(hp_host host, const char *name, double value) {
    uint8_t memory[HP_MESSAGE];
    hp_packer request = hp_packer_of(memory, sizeof memory);
    hp_pack_map(&request, 2);
    hp_pack_text(&request, "name");
    hp_pack_text(&request, name);
    hp_pack_text(&request, "value");
    hp_pack_number(&request, value);
    return hp_ask(host, HP_SERVICE_METRIC_PUT, hp_packed(&request), NULL);
}

/* Reads the latest value of a metric. HP_NO_VALUE: it has none yet; HP_NO_SUCH_NAME: the run does not know it.
 * `*value` is written only when the status is HP_OK. */
static inline hp_status hp_read_metric(hp_host host, const char *name, double *value) {
    hp_answer answer;
    const hp_text text = hp_text_of(name);
    const hp_status status = hp_ask_texts_(host, HP_SERVICE_METRIC, "name", text, NULL, NULL, &answer, NULL);
    if (status == HP_OK) *value = answer.value.number;
    return status;
}

/* Asks the loop for `action` (see HP_SERVICE_CONTROL), for a reason that people are shown. */
static inline hp_status hp_control(hp_host host, const char *action, hp_text reason) {
    hp_answer ignored;
    return hp_ask_texts_(host, HP_SERVICE_CONTROL, "reason", reason, "action", action, &ignored, NULL);
}

/* Asks for the end of the run, which then counts as stopped, not as failed. */
HP_PRINTF_(2, 3)
static inline hp_status hp_stop(hp_host host, const char *format, ...) {
    HP_FORMAT_(reason, format);
    return hp_control(host, "stop", reason);
}

/* Prints a line on the host's console. */
HP_PRINTF_(2, 3)
static inline hp_status hp_line(hp_host host, const char *format, ...) {
    hp_answer ignored;
    HP_FORMAT_(line, format);
    return hp_ask_texts_(host, HP_SERVICE_CONSOLE_LINE, "text", line, NULL, NULL, &ignored, NULL);
}

/* Writes to the host's log, from any thread, also outside a hook. `log` is that of hp_create; `target` names who
 * logs. */
HP_PRINTF_(4, 5)
static inline void hp_log(hp_log_function log, uint32_t level, const char *target, const char *format, ...) {
    HP_FORMAT_(message, format);
    const hp_log_record record = { (uint32_t) sizeof(hp_log_record), level, hp_text_of(target), message };
    log(&record);
}

/* ------------------------------------------------------------------------------------------------------------ state */

/* In `save_state`: gives the state, which is copied. For a struct: give its fields sizes of their own (int64_t,
 * double) and clear it at first, so that the bytes between them are the same each time. */
static inline hp_status hp_save_state(hp_host host, const void *state, size_t length) {
    return hp_ask(host, HP_SERVICE_SAVE_STATE, hp_bytes_of(state, length), NULL);
}

/* In `load_state`: copies the saved state to `state`; another length is an error. For a state whose length varies,
 * the bytes are in the event's hp_texts, borrowed until the hook returns. */
static inline hp_status hp_load_state(hp_host host, const hp_event *event, void *state, size_t length) {
    const hp_bytes saved = ((const hp_texts *) event->data)->bytes;
    if (saved.length != length)
        return hp_fail(host, "the saved state has %lu bytes instead of %lu: another version of the plugin saved it",
                       (unsigned long) saved.length, (unsigned long) length);
    if (length > 0) memcpy(state, saved.pointer, length);
    return HP_OK;
}

/* ---------------------------------------------------------------------------------------------------------- tensors */

/* Reads one tensor of a set (`parameters`, `gradients`, ...); a null `name` is the set's first. It is lent by the
 * host, and copied to the CPU where it lies on an accelerator. Valid until the hook returns. */
static inline hp_status hp_read_tensor(hp_host host, const char *set, const char *name, hp_tensor *tensor) {
    uint8_t memory[HP_MESSAGE];
    hp_packer request = hp_packer_of(memory, sizeof memory);
    hp_answer answer;
    hp_pack_map(&request, 2);
    hp_pack_text(&request, "set");
    hp_pack_text(&request, set);
    hp_pack_text(&request, "names");
    hp_pack_array(&request, name ? 1 : 0);
    if (name) hp_pack_text(&request, name);
    hp_status status = hp_ask(host, HP_SERVICE_TENSOR_READ, hp_packed(&request), &answer);
    if (status == HP_OK && answer.tensors > 0 && answer.tensor.tensor.device.kind != 1) {
        *tensor = answer.tensor;
        status = hp_ask_(host, HP_SERVICE_TENSOR_TO_HOST, hp_bytes_of(NULL, 0), tensor, 1, &answer, NULL);
    }
    if (status == HP_OK && answer.tensors == 0) return hp_fail(host, "there is no tensor in `%s`", set);
    if (status == HP_OK) *tensor = answer.tensor;
    return status;
}

/* Sends a custom event with a payload of at most HP_MESSAGE bytes and `count` tensors, each with its `name`; delivered
 * when the hook has returned. For a longer payload use HP_SERVICE_EMIT with `hp_call`. */
static inline hp_status hp_emit(hp_host host, const char *name, hp_bytes payload, const hp_tensor *tensors,
                                uint32_t count) {
    uint8_t memory[2 * HP_MESSAGE];
    hp_packer request = hp_packer_of(memory, sizeof memory);
    hp_answer ignored;
    hp_pack_map(&request, 2);
    hp_pack_text(&request, "name");
    hp_pack_text(&request, name);
    hp_pack_text(&request, "payload");
    hp_pack_bytes(&request, payload.pointer, payload.length);
    return hp_ask_(host, HP_SERVICE_EMIT, hp_packed(&request), tensors, count, &ignored, NULL);
}

/* How many elements a tensor has. */
static inline int64_t hp_tensor_length(const hp_tensor *tensor) {
    int64_t length = 1;
    for (int32_t index = 0; index < tensor->tensor.dimensions; index++) length *= tensor->tensor.shape[index];
    return length;
}

/* Where element `index` is, the last dimension fastest, whatever the strides. It may not be aligned for its type. */
static inline const void *hp_tensor_at(const hp_tensor *tensor, int64_t index) {
    const hp_dl_tensor *dl = &tensor->tensor;
    int64_t place = dl->strides ? 0 : index;
    for (int32_t dimension = dl->strides ? dl->dimensions - 1 : -1; dimension >= 0; dimension--) {
        place += index % dl->shape[dimension] * dl->strides[dimension];
        index /= dl->shape[dimension];
    }
    return (const uint8_t *) dl->data + dl->byte_offset + place * (dl->dtype.bits / 8);
}

/* Element `index` of a tensor on the CPU as a number: of f32, f64, bf16, i32, i64, u8 or bool; NaN of another type. */
static inline double hp_tensor_number(const hp_tensor *tensor, int64_t index) {
    const void *at = hp_tensor_at(tensor, index);
    float f32; double f64; int32_t i32; int64_t i64; uint16_t half; uint32_t bits = 0x7FC00000u;
    switch (tensor->tensor.dtype.code << 8 | tensor->tensor.dtype.bits) {
        case 0x220: memcpy(&bits, at, sizeof bits); break;
        case 0x240: memcpy(&f64, at, sizeof f64); return f64;
        case 0x410: memcpy(&half, at, sizeof half); bits = (uint32_t) half << 16; break;
        case 0x020: memcpy(&i32, at, sizeof i32); return i32;
        case 0x040: memcpy(&i64, at, sizeof i64); return (double) i64;
        case 0x108: case 0x608: return *(const uint8_t *) at;
    }
    memcpy(&f32, &bits, sizeof f32);
    return (double) f32;
}

#ifdef __cplusplus
}
#endif

#endif
