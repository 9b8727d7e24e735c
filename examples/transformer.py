# SPDX-License-Identifier: Apache-2.0
"""A small transformer with ternary weights, as BitNet b1.58 has them, that learns a grammar.

    python transformer.py

It reads sentences such as "the dogs that the cat near the trees sees run ." word by word and says
what comes next. Verbs agree with their own nouns, which may be many words before them. The same
network is trained in float and with absmean weights in all blocks; the embedding and the output
layer stay in float. The text is made here.
"""

import argparse

import keras
import numpy as np

import lowbit

NOUNS = ["dog", "cat", "tree", "girl", "boy", "bird", "horse", "cook"]
VERBS = ["see", "run", "sleep", "like", "know", "hear", "call", "follow"]
# Singular nouns and verbs first, then plural ones.
WORDS = [
    *(".", "the", "that", "near"),
    *(*NOUNS, *(f"{noun}s" for noun in NOUNS)),
    *(*(f"{verb}s" for verb in VERBS), *VERBS),
]
FIRST_VERB = WORDS.index(f"{VERBS[0]}s")
LENGTH = 20  # of the longest sentence
WIDTH = 32


def clause(random, depth=0):
    """The words of a noun, what may describe it, and a verb that agrees with it."""
    plural = random.integers(2)

    def noun(number):
        return ["the", NOUNS[random.integers(len(NOUNS))] + ("s" if number else "")]

    words = noun(plural)
    if random.random() < 0.3:
        words += ["near", *noun(random.integers(2))]
    if depth < 2 and random.random() < 0.6:
        words += ["that", *clause(random, depth + 1)]
    return [*words, VERBS[random.integers(len(VERBS))] + ("" if plural else "s")]


def sentences(count, seed):
    """Sentences as the numbers of their words [count, LENGTH + 1], filled up with full stops."""
    random = np.random.default_rng(seed)
    made = np.zeros([count, LENGTH + 1], np.int32)
    for row in made:
        words = clause(random)
        row[: len(words)] = [WORDS.index(word) for word in words]
    return made


def waves():
    """The positions, as "Attention is all you need" (arXiv:1706.03762) has them."""
    angles = np.arange(LENGTH)[:, None] / 10000 ** (np.arange(0, WIDTH, 2) / WIDTH)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def decoder(blocks=2, heads=4):
    """From words [count, LENGTH] to the logits of what follows each [count, LENGTH, words]."""
    words = keras.Input([LENGTH], dtype="int32")
    x = keras.layers.Embedding(len(WORDS), WIDTH)(words) + waves()
    for _ in range(blocks):
        y = keras.layers.LayerNormalization()(x)
        x += keras.layers.MultiHeadAttention(heads, WIDTH // heads)(y, y, use_causal_mask=True)
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.Dense(4 * WIDTH, activation="relu")(y)
        x += keras.layers.Dense(WIDTH)(y)
    x = keras.layers.LayerNormalization()(x)
    return keras.Model(words, keras.layers.Dense(len(WORDS))(x))


def train(model, words, epochs):
    """Trains the model to say the next word, and returns the loss of each epoch."""
    steps = epochs * -(-len(words) // 64)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model.fit(words[:, :-1], words[:, 1:], 64, epochs, verbose=0).history["loss"]


def agreement(model, words):
    """The share of the verbs that the model, asked for a verb, gives the right number."""
    is_verb = words[:, 1:] >= FIRST_VERB
    logits = model.predict(words[:, :-1], 500, verbose=0)[is_verb][:, FIRST_VERB:]
    said_plural = np.argmax(logits, axis=-1) >= len(VERBS)
    return np.mean(said_plural == (words[:, 1:][is_verb] >= FIRST_VERB + len(VERBS)))


def main():
    """Trains both networks and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)

    words, test_words = sentences(6000, seed=1), sentences(1000, seed=2)
    network = decoder()
    # Without skip_first=False the first attention would stay in float.
    ternary = lowbit.quantize_model(network, "absmean", skip_first=False)
    for name, model in (("float", network), ("absmean", ternary)):
        for epoch, loss in enumerate(train(model, words, arguments.epochs), start=1):
            print(f"epoch {epoch}: loss {loss:.4f}")
        print(f"{name}: {100 * agreement(model, test_words):.1f} % of the verbs agree")
    print(lowbit.summary(ternary))


if __name__ == "__main__":
    main()
