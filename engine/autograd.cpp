#include "engine/autograd.h"

#include <algorithm>
#include <queue>
#include <utility>

#include "engine/profile.h"
#include "kernels/add.h"

namespace depthstill {
namespace {

thread_local bool recording = true;
thread_local int64_t next_sequence = 1;

constexpr size_t kSecondDy = 3;  // the slot of record_activated()

// sum += x, taking x over where nothing has arrived yet.
void accumulate(Tensor& sum, Tensor x) {
  if (!sum.defined()) {
    sum = std::move(x);
    return;
  }
  check(sum.shape() == x.shape() && sum.dtype() == x.dtype(), "backward: a gradient of ", x.shape(), " ", x.dtype(),
        " meets one of ", sum.shape(), " ", sum.dtype());
  const OpRange range("accumulate", [&] { return Work{0, 3 * bytes_of(sum)}; });
  sum = writable(sum);
  visit(sum.dtype(), [&]<class T>() { run(sum.device(), cpu::add<T>, cuda::add<T>)(sum.numel(), sum, x, sum); });
}

// The seed of a backward pass: made once per device, as writing it there means to wait for the device.
const Tensor& one_on(Device device) {
  static const auto make = [](Device d) {
    const float one = 1.0f;
    return new Tensor(tensor<float>({1}, {&one, 1}, d));  // never freed: a GPU may be gone by then
  };
  if (device == Device::kCpu) {
    static const Tensor& cpu = *make(Device::kCpu);
    return cpu;
  }
  static const Tensor& cuda = *make(Device::kCuda);
  return cuda;
}

}  // namespace

Tensor with_node(Tensor t, std::shared_ptr<Node> node, int output_index) {
  t.node_ = std::move(node);
  t.output_index_ = output_index;
  return t;
}

std::vector<Tensor> record(const char* name, std::vector<Tensor> inputs, std::vector<Tensor> outputs,
                           std::function<Gradients(const Gradients& dys)> gradient) {
  const bool needed = recording && std::ranges::any_of(inputs, [](const Tensor& x) { return x.requires_grad(); });
  if (!needed) return outputs;
  auto node = std::make_shared<Node>();
  node->name = name;
  node->range = open_range();
  node->sequence = next_sequence++;
  // Only the history of the inputs is kept, not their storage: what the gradient needs, it captures.
  for (const Tensor& x : inputs) node->edges.push_back({x.node(), x.output_index()});
  node->gradient = std::move(gradient);
  node->grads.resize(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) outputs[i] = with_node(outputs[i], node, static_cast<int>(i));
  return outputs;
}

Tensor record(const char* name, std::vector<Tensor> inputs, Tensor output,
              std::function<Gradients(const Tensor& dy)> gradient) {
  return record(name, std::move(inputs), std::vector<Tensor>{std::move(output)},
                [gradient = std::move(gradient)](const Gradients& dys) { return gradient(dys[0]); })[0];
}

Tensor record_activated(const char* name, std::vector<Tensor> inputs, Tensor y, Activation activation, bool wants_sums,
                        std::function<Gradients(const Gradients& dys)> gradient, bool takes_two) {
  y = record(name, std::move(inputs), std::vector<Tensor>{std::move(y)}, std::move(gradient))[0];
  if (const std::shared_ptr<Node>& node = y.node()) {
    node->grads.resize(takes_two ? kSecondDy + 1 : kSecondDy);
    node->activation = activation;
    node->wants_sums = wants_sums;
    node->takes_two = takes_two;
  }
  return y;
}

ActivationBelow activation_below(const Tensor& y) {
  const std::shared_ptr<Node>& node = y.node();
  if (node == nullptr || node->activation == Activation::kNone) return {};
  return {node->activation, with_node(Tensor(), node, 1), node->wants_sums ? with_node(Tensor(), node, 2) : Tensor()};
}

bool ActivationBelow::wants_dz() const {
  if (kind == Activation::kNone) return false;
  const Gradients& arrived = dz.node()->grads;
  return arrived.empty() || !arrived[0].defined();  // empty: the tape was used, which backward() will say
}

Tensor writable(const Tensor& dy) { return dy.sole_owner() ? dy.detach() : clone(dy); }

void backward(const Tensor& loss) {
  check(loss.numel() == 1 && loss.dtype() == DType::kFloat, "backward: expected one fp32 element, got ", loss.shape(),
        " ", loss.dtype());
  backward(loss, one_on(loss.device()).view(loss.shape()));
}

void backward(const Tensor& y, const Tensor& dy) {
  check(y.requires_grad(), "backward: no gradient is recorded for this tensor");
  check(y.shape() == dy.shape() && y.dtype() == dy.dtype(), "backward: the gradient is ", dy.shape(), " ", dy.dtype(),
        ", the tensor ", y.shape(), " ", y.dtype());
  const NoGrad no_grad;
  const auto later = [](const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) {
    return a->sequence < b->sequence;
  };
  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, decltype(later)> ready(later);
  const auto arrive = [&](const std::shared_ptr<Node>& node, int output, Tensor gradient) {
    const bool leaf = node->sequence == 0;
    check(leaf || node->gradient != nullptr, "backward: the tape behind ", node->name, " was already used");
    if (!leaf && !node->queued) {
      node->queued = true;
      ready.push(node);
    }
    const bool second = output == 0 && node->takes_two && node->grads[0].defined();
    accumulate(node->grads[second ? kSecondDy : static_cast<size_t>(output)], std::move(gradient));
  };

  arrive(y.node(), y.output_index(), dy.detach());
  while (!ready.empty()) {
    const std::shared_ptr<Node> node = ready.top();
    ready.pop();
    const auto gradient = std::exchange(node->gradient, nullptr);
    const auto edges = std::exchange(node->edges, {});
    const ProfileRange range(node->range);
    Gradients dxs = gradient(std::exchange(node->grads, {}));
    check(dxs.size() == edges.size(), "backward: ", node->name, " returned ", dxs.size(), " gradients for ",
          edges.size(), " inputs");
    for (size_t i = 0; i < dxs.size(); ++i) {
      if (edges[i].node && dxs[i].defined()) arrive(edges[i].node, edges[i].output, std::move(dxs[i]));
    }
  }
}

NoGrad::NoGrad() : before_(std::exchange(recording, false)) {}
NoGrad::~NoGrad() { recording = before_; }
bool grad_enabled() { return recording; }

}  // namespace depthstill
