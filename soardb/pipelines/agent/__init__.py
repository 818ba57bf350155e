"""An agent that answers by searching collections, and learns from its own trajectories.

language.py     what a language model is asked, and what comes
openai_api.py   models behind an HTTP server that speaks the OpenAI protocol
local.py        models of the registry
grammars.py     what a step may write, for models that keep to a grammar
actions.py      what the agent does, written and read as Python
prompts.py      prompts that are Python files; exemplars.py: what they show
tools.py        search over a collection, kept
machine.py      five kinds of steps: the agent
trajectory.py   what happened, as plain values
asking.py       one question, as somebody waits for it; told.py: what is told of it
store.py        trajectories as a collection; exports
feedback.py     a model ranks the samples of each step
tuning.py       a policy is fine-tuned on steps
rest.py         grow, rank, fine-tune, verify, again
judge.py        whether an answer implies a reference
questions.py    sets of questions; compose.py: questions of several look-ups made from facts

    models, collections -> [agent] -> cli, service

Aksitov et al., "ReST meets ReAct", arXiv 2312.10003.
"""
