"""Exercise 02.3: six operations, the place of each, and what a wrong place hears."""

RANGE, TERMS, PART = "FP32: leaves the range", "FP32: adds many terms", "FP32: loses a small part"
NEVER = "either: never rounds"
LISTS = ("FP16", RANGE, TERMS, PART, NEVER)
OPERATIONS = {
    "A": ("FP16", {
        RANGE: "A's inputs and outputs are below 30. What is there that could leave the range?",
        TERMS: "A does add many terms, but read again where it adds them.",
        PART: "A's products are rounded, as all are. Where is the small part without which it would be wrong?",
        NEVER: "A multiplies, and a product of two 11-bit numbers has 22 bits. So it rounds.",
    }),
    "B": (NEVER, {
        "FP16": "B works there, but what would be lost elsewhere? Think of what comes out, compared with what goes in.",
        RANGE: "B's result is one of its inputs. How could that be too large?",
        TERMS: "B compares. It adds nothing.",
        PART: "B's result is one of its inputs. What could it lose?",
    }),
    "C": (RANGE, {
        "FP16": "C has logits of up to 15. What is the exponential of 15, and where does the format end?",
        TERMS: "C's trouble comes earlier, before anything is added.",
        PART: "C's trouble is its largest exponential, not its smallest.",
        NEVER: "C computes exponentials, and hardly any of them is a value of the format.",
    }),
    "D": (TERMS, {
        "FP16": "D's running total reaches 10,000. How far apart are neighbours there, compared with 1?",
        RANGE: "D's total stays below 65504. Its range is not the trouble.",
        PART: "D's terms are all of one size. When does one of them begin to be small?",
        NEVER: "D adds, and every addition rounds.",
    }),
    "E": (PART, {
        "FP16": "E's sum of exponentials is 1.0002. What does the format make of that, and what is its logarithm?",
        RANGE: "E subtracts the largest logit first. Which exponential could be too large then?",
        TERMS: "E adds three terms.",
        NEVER: "E takes exponentials and adds them. Both round.",
    }),
    "F": (RANGE, {
        "FP16": "F squares numbers of up to 300. Where does the format end?",
        TERMS: "F adds many terms, but one of them alone is trouble already.",
        PART: "F's trouble is at the other end of the format.",
        NEVER: "F multiplies, and a product of two 11-bit numbers has 22 bits.",
    }),
}  # fmt: skip
