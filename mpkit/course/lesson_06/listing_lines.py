"""Seven lines of the article's listing: the right verdict on each, and what each wrong one hears."""

VERDICTS = ("undefined", "outdated", "wrong comment", "something is missing before it", "fine")
UNCOMMENTED = "There is no comment on this line. Read what the line itself does"
SAID = {
    "model = ResNet50()": ("undefined", {
        "outdated": "ResNet50 is not an old name. Where would Python find it in this listing?",
        "wrong comment": f"{UNCOMMENTED}: which names does it use?",
        "something is missing before it": "An import, yes. Without it, what does Python say to the name?",
        "fine": "Run the line: does Python know ResNet50?",
    }),
    "torch.cuda.amp.GradScaler()": ("outdated", {
        "undefined": "It still exists, with a warning. What does the warning recommend?",
        "wrong comment": f"{UNCOMMENTED}: what does torch say to it?",
        "something is missing before it": "It needs nothing but torch, which is imported. What does torch say to it?",
        "fine": "It runs, but torch prints a warning about this name.",
    }),
    "outputs = model(inputs)": ("something is missing before it", {
        "undefined": "With the lines above it repaired, model and inputs have a value. Where are they?",
        "outdated": "A model is still called that way. On which device are its weights, and on which are the inputs?",
        "wrong comment": f"{UNCOMMENTED}, and then: on which device is each of its two tensors?",
        "fine": "The inputs went to the GPU one line above. What else would have to be there?",
    }),
    "loss = criterion(outputs, labels)": ("fine", {
        "undefined": "With the lines above it repaired, all three names have a value.",
        "outdated": "A loss is still called that way.",
        "wrong comment": f"{UNCOMMENTED}: which format does the loss have?",
        "something is missing before it": "A cast to FP32? On which of autocast's lists is cross-entropy?",
    }),
    "# backward (FP32)": ("wrong comment", {
        "fine": "Look at the table of formats once more: what does autocast use for gradients?",
        "undefined": "It is a comment. Does it say what happens?",
        "outdated": "It never was so, with autocast.",
        "something is missing before it": "It stands where it belongs. Is it true?",
    }),
    "scaler.scale(loss).backward()": ("something is missing before it", {
        "undefined": "scaler and loss are both defined above it.",
        "outdated": "That is how it is written today.",
        "wrong comment": f"{UNCOMMENTED}; the comment above it is another one of the seven.",
        "fine": "By itself, yes. But what is in .grad when the second batch arrives?",
    }),
    "scaler.update()": ("fine", {
        "undefined": "scaler is defined above the loop.",
        "outdated": "This verb has never had another name.",
        "wrong comment": f"{UNCOMMENTED}: what does it do to the scale?",
        "something is missing before it": "The step was taken one line above. What else would it wait for?",
    }),
}  # fmt: skip
LINES = {
    line: (right, {given: f"{line}: {why}" for given, why in said.items()}) for line, (right, said) in SAID.items()
}
