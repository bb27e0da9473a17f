"""The quiz of lesson 04."""

from mpkit.course.exercises.quiz import Item

QUIZ = (
    Item(
        question="A gradient value is 2⁻²⁶. FP16's smallest subnormal is 2⁻²⁴. What does FP16 make of it?",
        options=("2⁻²⁴, the nearest number above", "2⁻²⁶, as a subnormal", "0"),
        right=2,
        feedback=(
            "2⁻²⁶ is closer to 0 than to 2⁻²⁴. Everything up to 2⁻²⁵, half the smallest subnormal, goes to 0.",
            "Subnormals reach down to 2⁻²⁴, and between 0 and 2⁻²⁴ FP16 has no number.",
            "Yes. Up to 2⁻²⁵, half of the smallest subnormal, everything is flushed to zero.",
        ),
    ),
    Item(
        question="Why is the loss scale a power of two?",
        options=(
            "Because multiplying and dividing by it changes only the exponent, so nothing is rounded",
            "Because GPUs can only multiply by powers of two",
            "Because FP16 can only store powers of two",
        ),
        right=0,
        feedback=(
            "Yes. The mantissa bits stay as they are, so scaling and unscaling cost no precision.",
            "GPUs multiply by any number. But another factor would round every gradient twice.",
            "FP16 stores 1,024 numbers between one power of two and the next.",
        ),
    ),
    Item(
        question="A net of eleven layers does not train in FP32 either: its first layer's gradient is thirty million "
        "times smaller than its last layer's. Does loss scaling help?",
        options=(
            "Yes, it lifts the first layer's gradients",
            "No, it multiplies all layers alike, and after unscaling nothing has changed",
            "Only with dynamic scaling",
        ),
        right=1,
        feedback=(
            "It lifts them for the journey, and unscaling takes the lift away again. FP32 needed no lift.",
            "Yes. The ratio between layers is a property of the net. Scaling protects numbers from FP16's lower limit.",
            "Dynamic scaling finds the factor by itself, but it is still one factor for all layers.",
        ),
    ),
    Item(
        question="With a fixed loss scale the very first step overflows and is skipped. What happens next?",
        options=(
            "The gradients become smaller, and the run begins a little later",
            "The weights stay as they are, so the next steps overflow as well",
            "The scale is halved",
        ),
        right=1,
        feedback=(
            "Gradients become smaller because weights change. A skipped step changes none.",
            "Yes. Nothing changes but the batch. That is the cliff at the right end of the valley.",
            "A dynamic scale does that. A fixed one stays.",
        ),
    ),
)
