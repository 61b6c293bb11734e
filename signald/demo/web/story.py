"""What the scripted worker of the page says. There is no model: each answer is a text of this file, said word by word.

The texts tell what the visitor sees, so that a node may well be killed while its end is still being told.
"""

import re
from typing import Final

ANSWERS: Final[dict[str, str]] = {
    "deploy": (
        "A new node has started, and is ready before the old one is told to go. The old one gets SIGTERM. First it "
        "moves the worker that says this sentence, then your page: each opens a second connection to the new node, "
        "goes on there, and lets the first one go. At no time are you without a connection. Every word of mine has "
        "a number, and the store remembers which of them you have, so the new node goes on with the very next one. "
        "If a coloured mark stands in this text, a deploy, a rollback or a kill went through it right there. Look "
        "for a missing word, or for one that stands twice."
    ),
    "rollback": (
        "A rollback is a deploy of the release that was there before. Both releases run on one store for a while, "
        "so each of them has to understand what the other one wrote. For your page nothing is different: the "
        "worker moves first, then you, and this text goes on with the next word. You can press the button while I "
        "speak, as often as you like."
    ),
    "kill": (
        "SIGKILL is not a goodbye. The node is gone between two instructions: nothing is flushed, no connection is "
        "closed politely, and whatever it knew is lost with it. So it must not know anything that matters. What "
        "you sent is stored before it is acknowledged, and so is what I say. Your page and I both notice a broken "
        "connection, find the node that took over, show a token, and name the last thing that we have. What was "
        "under way is sent again, and what came twice is dropped. That takes a moment, and the moment is what the "
        "strip shows you."
    ),
    "reload": (
        "Reload this page while I speak, if you like. I will not stop: a page that is gone cancels nothing. The "
        "page keeps the token of its session for this one tab, and when it is back it asks for what was said. You "
        "will find this text as long as it has become meanwhile, and it will go on growing. A second tab is "
        "another visitor: it begins with a session of its own, and shares the canvas with you."
    ),
    "canvas": (
        "The canvas is a room. Each stroke is a record, and the store gives each change its place in one order, "
        "which is the same for everybody in the room. Your own stroke is on the screen at once, and is confirmed a "
        "moment later. A tab that was away gets what it missed, and nothing else. Open a second tab, draw in both "
        "of them, and kill the node in the middle of a stroke."
    ),
    "video": (
        "The pictures do not go through signald at all: they go from the worker to your browser, by WebRTC. What "
        "goes through signald is the agreement about them, an offer, an answer and a few addresses, and these must "
        "arrive once and in order. Software often ends a call when its signaling is lost. Here a deploy or a kill "
        "changes nothing: no ICE restart, and no frame that is missing because of it."
    ),
    "story": (
        "Once there was a lighthouse keeper with two lamps. Every few weeks a new lamp came over the water, and "
        "the keeper lit it beside the old one, turned both the same way, and waited until their beams lay on each "
        "other. Only then was the old lamp put out. No ship ever saw it happen. One night a storm broke the lamp "
        "that was burning. It went dark in the middle of a turn. But the keeper had written down each degree of "
        "the beam before the light had gone there, and the second lamp was already warm. It took up the turn at "
        "the next degree. A captain far out rubbed an eye, and thought it had been a blink. In the morning the "
        "keeper looked through the logbooks of all ships, as keepers do. There was one beam in each of them, with "
        "no gap, and none that had come round twice."
    ),
}
DEFAULT: Final = (
    "I am a script, not a model: I heard you, and I can tell you about this page. Ask me about a deploy, a "
    "rollback, a kill, a reload, the canvas or the video, or ask for a story, which is the longest thing that "
    "I know. Whatever I say, watch the strip above while I say it. Every few seconds the node that carries "
    "these words is replaced by another one, and sometimes it is killed. The words go on."
)
ALL: Final = "everything"
TOPICS: Final = (
    (ALL, r"everything|all\b"),
    ("kill", r"kill|crash|die|dead|sigkill|lost|lose"),
    ("rollback", r"roll|back|revert|undo"),
    ("reload", r"reload|refresh|tab\b|token|close"),
    ("canvas", r"canvas|draw|room|stroke|pen\b"),
    ("video", r"video|webrtc|picture|camera|ice\b|frame"),
    ("story", r"story|tale|long|once|sing|poem"),
    ("deploy", r"deploy|release|update|node|how|what|work"),
)
"""Topic and words that ask for it; the first that fits is answered, so the words that say least stand last."""


def answer(question: str) -> list[str]:
    """Return the answer to a question as the pieces in which it is said: words, with the space behind them."""
    asked = question.casefold()
    topic = next((topic for topic, words in TOPICS if re.search(rf"\b(?:{words})", asked)), None)
    text = "\n\n".join(ANSWERS.values()) if topic == ALL else DEFAULT if topic is None else ANSWERS[topic]
    return re.findall(r"\S+\s*", text)
