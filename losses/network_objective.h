// What objectives have in common that train one depth network: its parts learn at rates of their own, and before it is
// saved it has to predict something finite.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "engine/train/objective.h"
#include "models/depth_model.h"

namespace depthstill {

class NetworkObjective : public Objective {
 public:
  // The model must outlive the objective.
  NetworkObjective(DepthModel& model, std::vector<ParameterGroup> groups) : model_(model), groups_(std::move(groups)) {}

  Module& trained() override { return model_; }
  std::vector<ParameterGroup> groups() const override { return groups_; }
  bool predicts(std::span<const BatchTensors> views) override;

 protected:
  DepthModel& model_;

 private:
  std::vector<ParameterGroup> groups_;
};

}  // namespace depthstill
