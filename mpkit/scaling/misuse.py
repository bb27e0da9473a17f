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
    "of parameters, and no backward() has written it anew. A second division would make it too small. If a parameter "
    "group was added or removed after unscale_(): change the groups before unscale_() or after update(). If two "
    "optimizers share the parameter: leave it to one of them, or give each a gradient of its own: zero_grad(), "
    "backward() on a loss that was scaled after the first step, then the second step."
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
    "LossScaler needs a rule, such as DynamicScale(), StaticScale(1024.0) or preset('torch'), or a device and numbers "
    "as torch.amp.GradScaler takes them, such as 'cuda', init_scale=1024.0, got {got!r}. Pass one of these."
)
TWO_DEVICES = (
    "LossScaler got two devices, {first!r} and device={second!r}. Pass one; it serves wherever the first loss is."
)
RULE_AND_NUMBERS = (
    "LossScaler got the rule {rule!r}, and {names} besides. A rule has its own numbers: set them in the rule, or leave "
    "the rule out to get torch.amp.GradScaler's with these."
)
NOT_A_SWITCH = "LossScaler: enabled must be True or False, got {got!r}. Pass one of them."
NO_SUCH_NUMBER = (
    "the rule {rule!r} has no {name}. Build LossScaler with DynamicScale, or as torch.amp.GradScaler is built: "
    "LossScaler('cuda'); their rules have one."
)
OUTSIDE = (
    "update(new_scale={got!r}): the rule {rule!r} keeps the scale {limits}. Take a scale that it can reach, or "
    "build LossScaler with a rule without that limit."
)
ONE_SCALE = "update(): new_scale must be a number or a tensor with one element, got {got}. Pass one scale for all."
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
    "load_state_dict() needs what LossScaler.state_dict() returns, but {problem}. "
    "Take the state from another checkpoint, or leave load_state_dict() out to begin at the rule's first scale."
)
NO_STATE = "load_state_dict() needs what LossScaler.state_dict() returns, a dict, but {got} came. Pass that dict."
EMPTY_STATE = (
    "load_state_dict() needs what LossScaler.state_dict() returns, but this state is empty: a scaler that was not "
    "enabled saved it. Leave load_state_dict() out to begin at the rule's first scale, or go on without scaling: "
    "LossScaler(enabled=False)."
)
GRAD_SCALERS_STATE = (
    "this state was saved by a torch.amp.GradScaler with {saved}, and this scaler runs {here}, which counts otherwise. "
    "Build LossScaler('cuda'), which goes on as that GradScaler would, or start without the saved state."
)
NOT_A_GROUP = (
    "process_group must be 'auto', None or a group of torch.distributed, got {got!r}. Pass dist.new_group(...), "
    "dist.group.WORLD after init_process_group, or mesh.get_group()."
)
NOT_IN_GROUP = (
    "this process does not belong to the group that it passed as process_group. Pass it in the group's processes only, "
    "and None or another group here."
)
GROUP_IN_PICKLE = (
    "a LossScaler with a process_group cannot be pickled: a group is no more than a connection of this process. Save "
    "state_dict(), build LossScaler with a group there, and load it."
)
