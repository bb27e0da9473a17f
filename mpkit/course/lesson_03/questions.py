"""The quiz of lesson 03."""

from mpkit.course.exercises.quiz import Item

QUIZ = (
    Item(
        question="A BF16 weight is 0.5, so the next value is 2⁻⁸ ≈ 0.0039 away. An update adds 0.001. What is stored?",
        options=("0.501", "0.5039, the next value", "0.5, as before"),
        right=2,
        feedback=(
            "BF16 has no 0.501: between 0.5 and 0.5039 there is nothing.",
            "0.501 is closer to 0.5 than to 0.5039.",
            "Yes. The update is a quarter of a spacing. Less than half a spacing is rounded back.",
        ),
    ),
    Item(
        question="With stochastic rounding, a quarter of a spacing leaves the weight as it was in three tries of four. "
        "Why does training work all the same?",
        options=(
            "The fourth try moves the weight by a whole spacing, so on average the update arrives",
            "The lost quarters are kept in a second variable",
            "The gradient becomes larger until the weight moves",
        ),
        right=0,
        feedback=(
            "Yes. Each single step is wrong, but not in one direction: the errors cancel over many steps.",
            "That is Kahan's way. Stochastic rounding keeps nothing besides the weight.",
            "The gradient does not know how the weight is rounded.",
        ),
    ),
    Item(
        question="You train under torch.autocast with bfloat16. Where are the master weights?",
        options=("Nowhere: the weights are BF16", "In the model: its parameters are FP32", "Inside the GradScaler"),
        right=1,
        feedback=(
            "Look at a parameter's dtype: it is float32.",
            "Yes. The optimizer updates FP32 numbers; autocast rounds copies of them for the matrix products.",
            "The GradScaler scales the loss and skips steps. It holds no weights.",
        ),
    ),
    Item(
        question="BF16 weights, rounded to nearest. SGD with learning rate 0.1 lost half of its updates and "
        "less than one point of accuracy, with 0.01 most of its accuracy. What explains both?",
        options=(
            "With 0.1 the lost updates were a small part of the way, with 0.01 most of it",
            "With 0.01 the network had too few steps to learn",
            "SGD does without master weights, and 0.01 was bad luck",
        ),
        right=0,
        feedback=(
            "Yes. Ten times smaller updates, and the same spacing: the large ones, which carry the way, vanish too.",
            "FP32 had the same rate and the same steps, and learned far more.",
            "All five seeds lost it. The optimizer does not decide it alone: compare its updates with the spacing.",
        ),
    ),
)
