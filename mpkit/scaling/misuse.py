"""What `LossScaler` says when its verbs are used wrongly: the cause, then the cure."""

NO_SCALE = (
    "{verb} was called before any scale(): there is no scale on the device yet. "
    "Call backward() on scaler.scale(loss) first, then {verb}."
)
UNSCALED_TWICE = (
    "unscale_() was called twice on this optimizer (or on a wrapper of it) since the last update(). A second "
    "division would make its gradients too small. Call it once an iteration, after the last backward()."
)
UNSCALED_LATE = (
    "unscale_() was called after step() on this optimizer: step() has already unscaled and used its gradients. "
    "Call unscale_(), then clip, then step(), then update()."
)
STEPPED_TWICE = (
    "step() was called twice on this optimizer (or on a wrapper of it) since the last update(). "
    "Call update() once at the end of every iteration, also of a skipped one, or abandon() after an interrupt."
)
SHARED = (
    "{verb}: the gradient of the parameter {name} was already unscaled in this iteration, together with another list "
    "of parameters. A second division would make it too small. If a parameter group was added or removed after "
    "unscale_(): change the groups before unscale_() or after update(). If two optimizers share the parameter: leave "
    "it to one of them, or call update() and zero_grad() after the first before you call backward() for the second."
)
NOT_STEPPED = (
    "update() has nothing to judge: neither step() nor unscale_() was called since the last update(). "
    "Call step(optimizer) first, then update()."
)
NO_GRADIENT = (
    "{verb}: no parameter of this optimizer has a gradient. Call backward() on scaler.scale(loss) first. "
    "If you did: was everything frozen (requires_grad=False), or does the loss not depend on these parameters?"
)
FP16_PARAMETER = (
    "{verb}: the parameter {name} is float16. Keep the weights in FP32 (no model.half()) and let autocast choose "
    "float16 for the operations: an update smaller than half an ulp of a float16 weight would be lost."
)
CLOSURE = (
    "step() was given a closure, and a closure's backward() would not be scaled. "
    "Call backward() on scaler.scale(loss) yourself, then step(optimizer) alone."
)
NOT_AN_OPTIMIZER = "{verb} needs an optimizer (an object with param_groups), got {got}. Pass the optimizer itself."
NOT_A_RULE = (
    "LossScaler needs a rule, such as DynamicScale(), StaticScale(1024.0) or preset('torch'), got {got!r}. Pass one."
)
NOT_FLOATING = "scale() needs a floating-point tensor, or a list, tuple or dict of them, got {got}. Scale the loss."
IN_CAPTURE = (
    "the first scale() happened inside the capture of a CUDA graph, so every replay would reset the scale. "
    "Run one whole step before the capture."
)
MID_ITERATION = (
    "state_dict(), a copy or a pickle was asked for between unscale_() or step() and update(), when the scale is about "
    "to change. Call update() first, or abandon() if the iteration was interrupted."
)
OTHER_RULE = (
    "this state was saved by the rule {saved}, and this scaler runs {here}. "
    "Build LossScaler with the saved rule, or start without the saved state."
)
BAD_STATE = (
    "load_state_dict() needs what LossScaler.state_dict() returns: 'rule', 'scale', 'growth_tracker' and what else its "
    "rule remembers, all of them values that it can reach; got {got!r}. A torch.amp.GradScaler state does not fit."
)
