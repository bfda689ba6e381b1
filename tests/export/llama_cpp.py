"""llama.cpp in a process of its own: what it says to token ids, and how it cuts texts."""

import json
import subprocess
import sys

import torch

_CODE = """
import json, sys, urllib.request
import xllamacpp

asked = json.loads(sys.stdin.read())
params = xllamacpp.CommonParams()
params.model.path = asked["path"]
params.n_ctx, params.n_parallel, params.warmup, params.cpuparams.n_threads = 256, 1, False, 1
server = xllamacpp.Server(params)
said = []
for ids in asked["prompts"]:
    body = {"prompt": ids, "n_predict": 1, "n_probs": asked["n_tokens"], "temperature": 0}
    body["logit_bias"] = [[asked["letter"], 1000.0]]  # half a character would not be told
    answer = server.handle_completions(body)
    first = answer["choices"][0]["logprobs"]["content"][0]
    said.append({each["id"]: each["logprob"] for each in first["top_logprobs"]})
cut = []
for text in asked["texts"]:
    body = json.dumps({"content": text, "add_special": True, "parse_special": True})
    request = urllib.request.Request(server.listening_address + "/tokenize", body.encode())
    cut.append(json.load(urllib.request.urlopen(request))["tokens"])
print(json.dumps({"said": said, "cut": cut}))
"""


def asked(path, prompts=(), texts=(), n_tokens=512, letter=33):
    """Log probabilities of the next token `[n_prompts, n_tokens]`, and token ids of texts.

    `letter` is any token that is a whole character.
    """
    question = {"path": str(path), "prompts": prompts, "texts": texts, "n_tokens": n_tokens}
    question["letter"] = letter
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    said = torch.full((len(prompts), n_tokens), -torch.inf)
    for row, probabilities in enumerate(answer["said"]):
        for token, value in probabilities.items():
            said[row, int(token)] = value
    return said, answer["cut"]
