"""Loopback servers that refuse and limit as the providers do; what they answer is the simulation's.

Each speaks as its provider was seen to in November 2026: where the chat address lies, which
parameters it refuses in which words, how its limits look.
"""

import json
import time
from collections import Counter

from loopback import Loopback

from course_utils.offline.server import Settings, complete
from course_utils.prompts import read_generation_prompt


class Provider(Loopback):
    """A provider: `path` is where it chats, `refuse(body)` an error's (status, content) or None."""

    path, models_path, models = "/v1/chat/completions", "/v1/models", ("a-model",)
    key = "planted-key-of-the-provider"

    def __init__(self):
        self.times, self.answered, self.refused = [], Counter(), Counter()
        self.shut = 200  # the status that a list of models gets, if it is another one
        self.listing, self.redirect, self.seen = None, None, []
        super().__init__()

    def refuse(self, body):
        return None

    def dress(self, reply):
        return reply

    def get(self, path, key):
        self.seen.append(key)
        if self.redirect:
            return 302, b"", {"location": self.redirect}
        if key != f"Bearer {self.key}":
            return 401, {"error": {"message": "no such key"}}
        if self.shut != 200:
            return self.shut, {"error": "shut"}
        if path != self.models_path:
            return 404, {"error": "nothing here"}
        return 200, self.listing or {"data": [{"id": name} for name in self.models]}

    def post(self, path, body, key):
        if path != self.path:
            return 404, b"<html>404 page not found</html>"
        if key != f"Bearer {self.key}":
            return 401, {"error": {"message": "no such key"}}
        with self.lock:
            self.times.append(time.monotonic())
            if refused := self.refuse(body):
                self.refused[refused[0]] += 1
                return refused
            self.answered[json.dumps(body, sort_keys=True)] += 1
        prompt = body["messages"][-1]["content"]
        role = "teacher" if read_generation_prompt(prompt) else "judge"
        known = ("messages", "seed", "temperature", "response_format")
        asked = {name: body[name] for name in known if name in body}
        reply = complete({"model": f"simulated-{role}", **asked}, Settings())
        return 200, self.dress(reply | {"model": body["model"]})


def _openai_error(status, message, **more):
    return status, {"error": {"message": message, "type": "invalid_request_error", **more}}


class OpenAI(Provider):
    """A reasoning model: without `reasoning_effort: none` it thinks until its tokens are spent."""

    models = ("gpt-6-luna", "gpt-6.1-terra")

    def refuse(self, body):
        if "max_tokens" in body:
            return _openai_error(400, "Unsupported parameter: 'max_tokens' is not supported with "
                                 "this model. Use 'max_completion_tokens' instead.",
                                 param="max_tokens", code="unsupported_parameter")
        if body.get("reasoning_effort") != "none" and "temperature" in body:
            return _openai_error(400, "Unsupported value: 'temperature' does not support 0 with "
                                 "this model. Only the default (1) value is supported.",
                                 param="temperature", code="unsupported_value")
        if body.get("reasoning_effort") != "none":
            return 200, {"id": "x", "object": "chat.completion", "created": 0, "model": "m",
                         "choices": [{"index": 0, "finish_reason": "length",
                                      "message": {"role": "assistant", "content": ""}}],
                         "usage": {"prompt_tokens": 9, "completion_tokens": 4000}}


class Gemini(Provider):
    """Errors are lists; `seed` is refused; a day has `daily` requests, a minute fewer."""

    path, models_path = "/v1beta/openai/chat/completions", "/v1beta/openai/models"
    models = ("models/gemini-3.1-flash-lite", "models/gemini-3.5-flash")
    daily, too_fast = 10_000, 2  # how many requests, and how many are told to slow down

    def refuse(self, body):
        if "seed" in body:
            return 400, [{"error": {
                "code": 400, "status": "INVALID_ARGUMENT",
                "message": 'Invalid JSON payload received. Unknown name "seed": Cannot find field.',
                "details": [{"@type": "type.googleapis.com/google.rpc.BadRequest"}]}}]
        if self.answered.total() >= self.daily:
            return self.limit("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "37s")
        if self.refused[429] < self.too_fast:
            return self.limit("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "0.2s")

    def limit(self, quota, delay):
        return 429, [{"error": {
            "code": 429, "status": "RESOURCE_EXHAUSTED",
            "message": "You exceeded your current quota, please check your plan and billing "
                       f"details.\n* Quota exceeded, limit: 15\nPlease retry in {delay}.",
            "details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure",
                         "violations": [{"quotaId": quota}]},
                        {"@type": "type.googleapis.com/google.rpc.RetryInfo",
                         "retryDelay": delay}]}}]


class Groq(Provider):
    """Tokens a minute are limited, in words; schemas are refused by some models, in words too."""

    path, models_path = "/openai/v1/chat/completions", "/openai/v1/models"
    models = ("openai/gpt-oss-120b", "qwen/qwen3.6-27b")
    told = 0.0

    def refuse(self, body):
        if "response_format" in body:
            return _openai_error(400, "This model does not support response format `json_schema`. "
                                 "See supported models in the documentation.")
        if self.answered.total() in (1, 4) and not self.told:
            self.told = time.monotonic()
            return 429, {"error": {
                "message": f"Rate limit reached for model `{body['model']}` in organization `org` "
                           "on tokens per minute (TPM): Limit 8000, Used 7900, Requested 4000. "
                           "Please try again in 300ms. Visit the console for more.",
                "type": "tokens", "code": "rate_limit_exceeded"}}
        if self.told:
            assert time.monotonic() - self.told > 0.25 or not self.sequential
            self.told = 0.0

    sequential = True


class Colab(Provider):
    """Colab's proxy takes what `google.colab.ai` sends, and here nothing else."""

    path, models_path = "/models/openapi/chat/completions", "/models"
    models = ("google/gemini-2.5-flash", "google/gemma-3-27b")

    def refuse(self, body):
        for name in body.keys() - {"model", "messages", "stream"}:
            return 400, [{"error": {"code": 400, "message": f"Unknown name '{name}'."}}]

    def dress(self, reply):
        """The answer in parts, after some thinking: a shape that some models have."""
        message = reply["choices"][0]["message"]
        message["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": "음"}]},
                              {"type": "text", "text": message["content"]}]
        return reply


class ThinkingAloud(Provider):
    """A local server whose model thinks aloud, its first tag cut off by the template."""

    models = ("qwen-of-my-own",)
    key = "none"

    def dress(self, reply):
        message = reply["choices"][0]["message"]
        message["content"] = f"<한 줄> 생각해 보니 [[B]]일까?</think>\n\n{message['content']}"
        return reply
