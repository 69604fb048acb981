// Reverse-mode differentiation over a tape of nodes, one per op call. A gradient function is pure: it receives the
// gradients of the op's outputs and returns those of its inputs; the tape accumulates.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensor.h"
#include "kernels/activation.h"

namespace depthstill {

using Gradients = std::vector<Tensor>;

struct Node {
  struct Edge {
    std::shared_ptr<Node> node;  // null where an input needs no gradient
    int output = 0;
  };
  const char* name = "";
  const std::string* range = nullptr;  // range that was open when the node was recorded (profile.h)
  int64_t sequence = 0;                // order of creation, which backward() follows in reverse; 0 for a leaf
  std::vector<Edge> edges;             // one per input
  // Gradients of the outputs (undefined where none arrived) -> gradients of the inputs (undefined where none is
  // needed).
  std::function<Gradients(const Gradients&)> gradient;
  Gradients grads;  // one slot per output, filled by backward(); more behind record_activated()
  Activation activation = Activation::kNone;  // argument of record_activated()
  bool wants_sums = false, takes_two = false;
  bool queued = false;
};

// Attaches history to what an op computed. `gradient` captures the tensors that it needs, also outputs: the handles
// inside the op have no node, so no cycle can arise. Returns the handles to pass on.
Tensor record(const char* name, std::vector<Tensor> inputs, Tensor output,
              std::function<Gradients(const Tensor& dy)> gradient);
std::vector<Tensor> record(const char* name, std::vector<Tensor> inputs, std::vector<Tensor> outputs,
                           std::function<Gradients(const Gradients& dys)> gradient);

// Records an op that ends in an activation, y = act(z), whose slope act' is a function of y. Its node takes gradients
// at three slots: 0 takes dy. 1 takes dz, from an op above whose kernel has already multiplied by act'(y). 2 takes the
// sums of what arrives at 1 over all but the last dimension, in fp32: with `wants_sums` they come along with it and
// save a pass for dbias. Each slot adds up by itself, and `gradient` puts them together: it gets {dy, dz, sums},
// undefined where none arrived, and has dz + dy * act'(y) to go on with. With `takes_two` there is a slot 3 for what
// arrives at 0 after the first dy, so that `gradient` adds the two in the pass that it makes anyway.
Tensor record_activated(const char* name, std::vector<Tensor> inputs, Tensor y, Activation activation, bool wants_sums,
                        std::function<Gradients(const Gradients& dys)> gradient, bool takes_two = false);

// An ActivationBelow lets an op that takes y for its input send its gradient to slots 1 and 2 instead of 0.
struct ActivationBelow {
  Activation kind = Activation::kNone;  // none: only slot 0 is there
  Tensor dz, sums;  // inputs to record beside y or instead of it: history without memory; sums has none if unwanted

  // The gradient function of an op that recorded y as well asks this: it is false where there is no slot 1, or where
  // another op's dy waits at 0 already. A pass over that one is due then in any case, and the slope comes with it.
  bool wants_dz() const;
};
ActivationBelow activation_below(const Tensor& y);

// Returns what a gradient function may overwrite: `dy` itself if nothing else shares its storage, else a copy.
Tensor writable(const Tensor& dy);

// Adds d loss / d leaf to grad() of every leaf that `loss` (one fp32 element) depends on, then frees the tape: saved
// tensors go as soon as their gradient function has run. `dy` replaces the seed 1 for any shape.
void backward(const Tensor& loss);
void backward(const Tensor& y, const Tensor& dy);

// While a NoGrad is alive, ops on its thread record nothing.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};
bool grad_enabled();

}  // namespace depthstill
