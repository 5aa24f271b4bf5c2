// `loss-spread`: how widely the last losses are spread, as a metric after each epoch, and an end to the run when the
// spread is small. A class in C++17: the three functions at the end lead to it, and let no exception out.
#include "host_plugin.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>

namespace {

const char *const KINDS[] = {HP_JSON({
    "kind": "loss-spread", "version": "1.0.0", "license": "MIT OR Apache-2.0", "by_default": false,
    "summary": "Measures how widely the last values of a metric are spread, and stops when it no longer moves",
    "hooks": ["epoch_end", "save_state", "load_state"], "reads": ["val_loss"], "produces": ["loss_spread"],
    "options": { "type": "object", "additionalProperties": false, "properties": {
        "metric": { "type": "string", "default": "val_loss", "description": "The metric." },
        "window": { "type": "integer", "minimum": 2, "default": 3, "description": "How many epochs." },
        "enough": { "type": "number", "default": 0.0, "description": "A spread below it ends the run." }
    } }
})};

// A status that is not HP_OK, as an exception. The host knows the words already: the helper told them.
struct Failed {
    hp_status status;
};

void check(hp_status status) {
    if (status != HP_OK) throw Failed{status};
}

class LossSpread {
public:
    LossSpread(hp_host host, const hp_reply *reply) {
        char metric[256];
        check(hp_option_text(host, "metric", metric, sizeof metric, reply));
        check(hp_option_int(host, "window", &window_, reply));
        check(hp_option_float(host, "enough", &enough_, reply));
        metric_ = metric;
    }

    void handle(const hp_event &event, hp_host host) {
        switch (event.kind) {
            case HP_EVENT_EPOCH_END: return epoch_end(host);
            case HP_EVENT_SAVE_STATE: return save(host);
            case HP_EVENT_LOAD_STATE: return load(static_cast<const hp_texts *>(event.data)->bytes);
        }
    }

private:
    void epoch_end(hp_host host) {
        double loss;
        const hp_status status = hp_read_metric(host, metric_.c_str(), &loss);
        // A run without an evaluation in this epoch is not a failure.
        if (status == HP_NO_VALUE) return;
        check(status);
        last_.push_back(loss);
        if (last_.size() > static_cast<std::size_t>(window_)) last_.pop_front();
        const auto [least, most] = std::minmax_element(last_.begin(), last_.end());
        const double spread = *most - *least;
        check(hp_put_metric(host, "loss_spread", spread));
        if (last_.size() == static_cast<std::size_t>(window_) && spread < enough_)
            check(hp_stop(host, "%s moved by %g in %d epochs", metric_.c_str(), spread, static_cast<int>(window_)));
    }

    // The state is a MessagePack array, which grows with the window.
    void save(hp_host host) {
        std::string memory(9 * last_.size() + 5, '\0');
        hp_packer packer = hp_packer_of(&memory[0], memory.size());
        hp_pack_array(&packer, static_cast<uint32_t>(last_.size()));
        for (const double loss : last_) hp_pack_number(&packer, loss);
        const hp_bytes state = hp_packed(&packer);
        check(hp_save_state(host, state.pointer, state.length));
    }

    void load(hp_bytes state) {
        hp_unpacker unpacker = hp_unpacker_of(state);
        hp_item item;
        if (!hp_unpack(&unpacker, &item) || item.type != HP_ITEM_ARRAY) throw std::runtime_error("the state is damaged");
        last_.clear();
        while (hp_unpack(&unpacker, &item)) last_.push_back(item.number);
    }

    std::string metric_;
    int64_t window_ = 0;
    double enough_ = 0;
    std::deque<double> last_;
};

hp_status create(uint32_t, const hp_create *request, void **instance, const hp_reply *reply) {
    try {
        *instance = std::make_unique<LossSpread>(request->host, reply).release();
        return HP_OK;
    } catch (const Failed &failed) {
        return failed.status;
    } catch (const std::exception &error) {
        return hp_refuse(reply, "%s", error.what());
    } catch (...) {
        return hp_refuse(reply, "an exception that says nothing");
    }
}

hp_status handle(uint32_t, void *instance, const hp_event *event, hp_host host) {
    try {
        static_cast<LossSpread *>(instance)->handle(*event, host);
        return HP_OK;
    } catch (const Failed &failed) {
        return failed.status;
    } catch (const std::exception &error) {
        return hp_fail(host, "%s", error.what());
    } catch (...) {
        return hp_fail(host, "an exception that says nothing");
    }
}

hp_status destroy(uint32_t, void *instance) {
    delete static_cast<LossSpread *>(instance);
    return HP_OK;
}

}  // namespace

HP_LIBRARY(KINDS, create, handle, destroy)
