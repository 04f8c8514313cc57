"""Errors in the words of real services: what kind they are, and what they do not take."""

import json
from typing import Any

import pytest

from exgra_med.llm.fault import kind_of, read_fault, refused_parameters, shown, wait_in
from exgra_med.llm.request import ChatRequest

SENT = {
    "model": "m",
    "messages": [],
    "max_tokens": 64,
    "temperature": 0.0,
    "seed": 0,
    "top_p": 0.9,
    "response_format": {},
}
KEY = "sk-proj-abcdefghijkl"


def openai(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def gemini(message: str) -> list[Any]:
    violations = [{"description": line} for line in message.split("\n")]
    detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}
    error = {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": [detail]}
    return [{"error": error}]


def old_vllm(message: str) -> dict[str, Any]:
    return {
        "object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400
    }  # fmt: skip


NOT_TAKEN = {
    "OpenAI, other name": (
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        ),
        ["max_tokens"],
    ),
    "OpenAI, value": (
        openai(
            "Unsupported value: 'temperature' does not support 0 with this model. "
            "Only the default (1) value is supported.",
            "temperature",
            "unsupported_value",
        ),
        ["temperature"],
    ),
    "Copilot, no param": (
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            None,
            "invalid_request_body",
        ),
        ["max_tokens"],
    ),
    "Azure, old version": (openai("Unrecognized request argument supplied: seed"), ["seed"]),
    "Azure, several": (
        openai("Unrecognized request arguments supplied: seed, topP"),
        ["top_p", "seed"],
    ),
    "Azure, schema": (
        openai(
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with "
            "this model.",
            "response_format",
        ),
        ["response_format"],
    ),
    "OpenAI, schema": (
        openai(
            "Invalid schema for response_format 'reply': In context=('properties', 'score_1'), "
            "'maximum' is not permitted.",
            "response_format",
        ),
        ["response_format"],
    ),
    "vLLM, old": (
        old_vllm(
            "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), "
            "'msg': 'Extra inputs are not permitted', 'input': 0}]"
        ),
        ["seed"],
    ),
    "vLLM, pydantic": (
        openai(
            "1 validation error for ChatCompletionRequest\nseed\n  Extra inputs are not permitted "
            "[type=extra_forbidden, input_value=0, input_type=int]",
            "400",
        ),
        ["seed"],
    ),
    "FastAPI": (
        {
            "detail": [
                {
                    "type": "extra_forbidden",
                    "loc": ["body", "seed"],
                    "msg": "Extra inputs are not permitted",
                    "input": 0,
                }
            ]
        },
        ["seed"],
    ),
    "Mistral": (
        {
            "object": "error",
            "message": {
                "detail": [
                    {
                        "type": "extra_forbidden",
                        "loc": ["body", "seed"],
                        "msg": "Extra inputs are not permitted",
                    }
                ]
            },
            "type": "invalid_request_error",
        },
        ["seed"],
    ),
    "LiteLLM": (
        openai(
            "litellm.UnsupportedParamsError: gpt-5 models don't support temperature=0. Only "
            "temperature=1 is supported. To drop unsupported params set `litellm.drop_params = "
            "True`. Received Model Group=gpt-5\nAvailable Model Group Fallbacks=None",
            None,
            "400",
        ),
        ["temperature"],
    ),
    "LiteLLM, list": (
        openai(
            "litellm.UnsupportedParamsError: bedrock does not support parameters: ['seed'], for "
            "model=x. To drop these, set `litellm.drop_params=True`"
        ),
        ["seed"],
    ),
    "LiteLLM around OpenAI": (
        openai(
            "litellm.BadRequestError: OpenAIException - Error code: 400 - {'error': {'message': "
            "\"Unsupported parameter: 'temperature' is not supported with this model.\", 'type': "
            "'invalid_request_error', 'param': 'temperature', 'code': 'unsupported_parameter'}}"
        ),
        ["temperature"],
    ),
    "OpenRouter around OpenAI": (
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {
                    "raw": json.dumps(
                        openai("Unsupported parameter: 'temperature' is not supported.")
                    ),
                    "provider_name": "OpenAI",
                },
            }
        },
        ["temperature"],
    ),
    "Gemini": (
        gemini(
            'Invalid JSON payload received. Unknown name "seed": Cannot find field.\n'
            'Invalid JSON payload received. Unknown name "frequency_penalty": Cannot find field.'
        ),
        ["seed"],
    ),
    "LM Studio": (
        {"error": "'response_format.type' must be 'json_schema' or 'text'"},
        ["response_format"],
    ),
    "DeepSeek": (openai("This response_format type is unavailable now"), ["response_format"]),
    "llama.cpp": (
        {
            "error": {
                "code": 400,
                "message": '"response_format" type must be one of "text" or "json_object", '
                "but got: json_schema",
                "type": "invalid_request_error",
            }
        },
        ["response_format"],
    ),
    "Groq": (
        openai("property 'seed' is unsupported"),
        ["seed"],
    ),
    "Groq, schema": (
        openai("This model does not support response format `json_schema`.", "response_format"),
        ["response_format"],
    ),
    "xAI": (
        {
            "code": "Client specified an invalid argument",
            "error": "Argument not supported on this model: seed",
        },
        ["seed"],
    ),
    "xAI, camel case": ({"error": "Model grok-4 does not support parameter topP."}, ["top_p"]),
    "Moonshot": (openai("invalid temperature: only 1 is allowed for this model"), ["temperature"]),
    "Anthropic": (
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "`temperature` is deprecated for this model.",
            },
        },
        ["temperature"],
    ),
    "Bedrock": (
        openai("`temperature` and `top_p` cannot both be specified for this model."),
        ["top_p"],
    ),
    "TGI": (
        {
            "error": "Input validation error: `temperature` must be strictly positive",
            "error_type": "validation",
        },
        ["temperature"],
    ),
    "GigaChat": (
        {"status": 422, "message": "Invalid params: temperature must be in range (0, +inf)"},
        ["temperature"],
    ),
    "transformers": (
        {"detail": "`temperature` (=0.0) has to be a strictly positive float, otherwise ..."},
        ["temperature"],
    ),
    "Perplexity": (
        openai("At body -> response_format -> type: Input should be 'text'"),
        ["response_format"],
    ),
    "Chinese": ({"error": {"message": "参数 seed 不支持"}}, ["seed"]),
    "plain text": ("Unknown parameter: seed", ["seed"]),
    "what is known is listed in the sentence": (
        {"error": "Unknown argument 'seed', allowed arguments are: temperature, top_p"},
        ["seed"],
    ),
    "what is known is listed": (
        openai("Unknown parameter: 'seed'. Supported parameters: temperature, top_p, max_tokens"),
        ["seed"],
    ),
}
"""Name -> (body of the error, our names of what is not taken)."""

TAKEN = {
    "too many tokens": openai(
        "max_tokens is too large: 5000. This model supports at most 4096 completion tokens, "
        "whereas you provided 5000.",
        "max_tokens",
        "invalid_value",
    ),
    "a range of tokens": openai("InvalidParameter: Range of max_tokens should be [1, 32]"),
    "tokens of another kind": openai("max_tokens must be an integer", "max_tokens"),
    "too long": old_vllm(
        "This model's maximum context length is 4096 tokens. However, you requested 4200 tokens "
        "(3176 in the messages, 1024 in the completion). Please reduce max_tokens."
    ),
    "too hot": openai(
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3 "
        "instead.",
        "temperature",
        "decimal_above_max_value",
    ),
    "messages": openai("Invalid value: 'seed' is not allowed here.", "messages[0].content"),
    "a picture": openai("Invalid image: only png and jpeg are supported.", "image_url"),
    "no words": {"error": {}},
    "another machine's": openai("Unknown parameter: 'logit_bias'", "logit_bias"),
}
"""Errors after which nothing is left out."""


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_a_parameter_that_is_not_taken_is_known_by_the_words(name: str) -> None:
    body, expected = NOT_TAKEN[name]
    for sent in (body, json.dumps(body) if not isinstance(body, str) else body):
        fault = read_fault(sent)
        assert sorted(refused_parameters(fault, SENT, [])) == sorted(expected)
        assert kind_of(400, fault, with_images=True) == "rejected"


@pytest.mark.parametrize("name", TAKEN)
def test_other_errors_cost_no_parameter(name: str) -> None:
    assert refused_parameters(read_fault(TAKEN[name]), SENT, []) == []


def test_a_temperature_that_was_chosen_is_not_given_up_for_its_value() -> None:
    range_ = read_fault(openai("temperature must be in range [0, 1]", "temperature"))
    unknown = read_fault(openai("temperature is not supported with this model", "temperature"))
    for fault, temperature, expected in (
        (range_, 1.5, []), (range_, 0.0, ["temperature"]), (unknown, 1.5, ["temperature"]),
    ):  # fmt: skip
        assert refused_parameters(fault, SENT | {"temperature": temperature}, []) == expected


def test_only_what_was_sent_is_left_out() -> None:
    fault = read_fault(openai("Unsupported parameters: temperature, seed, top_p"))
    assert refused_parameters(fault, {"seed": 1}, []) == ["seed"]
    # An error that quotes a question about a temperature is about something else.
    fault = read_fault(openai("Invalid message: What must the temperature be"))
    assert refused_parameters(fault, SENT, ["What must the temperature be"]) == []


KINDS = [
    (429, openai("You exceeded your current quota, please check your plan and billing details.",
                 None, "insufficient_quota"), "quota"),
    (429, openai("You exceeded your current quota, please check your plan and billing details."),
     "quota"),
    (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message":
            "You exceeded your current quota, please check your plan and billing details. "
            "Please retry in 36.1s."}}], "rate limit"),
    (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message":
            "You exceeded your current quota. Please retry in 36.1s.",
            "details": [{"violations": [{"quotaId": "RequestsPerDayPerProject-FreeTier"}]}]}}],
     "quota"),
    (429, openai("Requests to the ChatCompletions_Create Operation have exceeded token rate limit "
                 "of your current OpenAI S0 pricing tier. Please retry after 20 seconds. Please go "
                 "here: https://aka.ms/oai/quotaincrease", None, "429"), "rate limit"),
    (429, openai("Rate limit reached for gpt-4o on requests per day (RPD): Limit 200, Used 200. "
                 "Please try again in 7m12s.", None, "rate_limit_exceeded"), "rate limit"),
    (429, openai("Rate limit exceeded: free-models-per-day"), "quota"),
    (402, {"error": {"message": "Insufficient credits", "code": 402}}, "quota"),
    (402, openai("Insufficient Balance"), "quota"),
    (403, openai("insufficient_user_quota"), "quota"),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message":
           "Your credit balance is too low to access the API."}}, "quota"),
    (401, openai("Incorrect API key provided: sk-a***z.", None, "invalid_api_key"), "permission"),
    (401, {"statusCode": 401, "message": "Access denied due to invalid subscription key"},
     "permission"),
    (400, gemini("API key not valid. Please pass a valid API key."), "permission"),
    (403, openai("Project does not have access to model `gpt-5`", None, "model_not_found"),
     "permission"),
    (403, {"error": {"message": "Your input requires moderation", "code": 403,
                     "metadata": {"reasons": ["violence"], "flagged_input": "x"}}},
     "content filter"),
    (404, old_vllm("The model `x` does not exist."), "model"),
    (404, {"error": {"message": 'model "x" not found, try pulling it first'}}, "model"),
    (404, {"error": {"code": "DeploymentNotFound", "message":
           "The API deployment for this resource does not exist."}}, "model"),
    (400, openai("Invalid model name passed in model=x. Call `/v1/models` to view available "
                 "models for your key."), "model"),
    (400, openai("Model Not Exist"), "model"),
    (400, {"error": {"message": "openai/x is not a valid model ID", "code": 400}}, "model"),
    (400, {"error": {"code": "content_filter", "param": "prompt", "message":
           "The response was filtered due to the prompt triggering Azure OpenAI's content "
           "management policy.", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
     "content filter"),
    (500, {"error": {"code": 500, "message": "image input is not supported - hint: if this is "
           "unexpected, you may need to provide the mmproj", "type": "server_error"}}, "images"),
    (400, old_vllm("x is not a multimodal model"), "images"),
    (400, openai("Invalid content type. image_url is only supported by certain models.",
                 "messages.[0].content.[1].type"), "images"),
    (400, openai("Failed to deserialize the JSON body into the target type: messages[0]: unknown "
                 "variant `image_url`, expected `text`"), "images"),
    (404, {"error": {"message": "No endpoints found that support image input", "code": 404}},
     "images"),
    (404, {"error": {"message": "No endpoints found for x.", "code": 404}}, "model"),
    (400, openai("The requested model 'x' is not supported by any provider you have enabled.",
                 "model", "model_not_supported"), "model"),
    (404, openai("Unable to access model x.", None, "model_not_available"), "model"),
    (404, {"detail": {"error": "Model is not available"}}, "model"),
    (404, "404 page not found", "address"),
    (405, {"detail": "Method Not Allowed"}, "address"),
    (400, old_vllm("At most 1 image(s) may be provided in one request."), "rejected"),
    (400, {"error": "this model does not support image input"}, "images"),
    (503, {"error": {"message": "Loading model", "type": "unavailable_error"}}, "server"),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
     "server"),
    (502, "<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "server"),
    (None, {"error": {"message": "Provider returned error", "metadata": {"raw":
            "z-ai/glm is temporarily rate-limited upstream"}}}, "server"),
    (None, {"error": "something is wrong"}, "rejected"),
    (None, {"base_resp": {"status_code": 1004, "status_msg": "login fail: invalid api key"}},
     "permission"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind"), KINDS, ids=range(len(KINDS)))
def test_what_an_error_means_for_the_run(status: int | None, body: Any, kind: str) -> None:
    assert kind_of(status, read_fault(body), with_images=True) == kind


def test_a_model_may_be_called_after_what_it_can_do() -> None:
    fault = read_fault("`temperature` is not supported with llama-3.2-11b-vision")
    assert kind_of(400, fault, with_images=True) == "images"
    for model in ("llama-3.2-11b-vision", "meta/llama-3.2-11b-vision"):
        assert kind_of(400, fault.without(model), with_images=True) == "rejected"
    assert fault.without("t").sentence == fault.sentence


def test_an_error_about_one_image_does_not_end_a_run() -> None:
    for sentence in (
        "You uploaded an unsupported image. Please use one of these formats: png, jpeg",
        "The image is too large and not supported",
        "image dimensions above 8000 are not supported",
        "At most 2 image(s) may be provided in one request",
    ):
        assert kind_of(400, read_fault(sentence), with_images=True) == "rejected"


def test_an_error_may_say_when_to_come_back() -> None:
    for text, seconds in {
        "Please try again in 7m12s.": 432.0,
        "Please retry in 36.1s": 36.1,
        "Please retry after 20 seconds": 20.0,
        "Please try again in 820ms": 0.82,
        "no": None,
    }.items():
        assert wait_in(read_fault(text)) == pytest.approx(seconds)


QUESTION = "What did Mr Jones of Ward 7 complain of on Monday?"


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The model `x` does not exist", "The model `x` does not exist"),
        (f"Incorrect API key provided: {KEY}", "Incorrect API key provided: [key]"),
        ("Incorrect API key: sk-pro***ijkl", "Incorrect API key: [key]"),
        (
            "Received API Key = sk-...ijkl, Hash =" + "a1" * 32,
            "Received API Key = [key], Hash […]",
        ),
        ("key ****ijkl is invalid", "key [key] is invalid"),
        (f"bad: {QUESTION}", "bad: […]?"),
        (f"bad content: {QUESTION[:28]}", "bad content: […]"),
        ("input_value='Mr Jones', input_type=str", "input_value='[…]', input_type=str"),
        ('{\\"text\\":\\"What did Mr Jones of Ward 7\\"}', '{"text":"[…]"}'),
        ("see http://me:secret@host/v1?api-key=abc&x=1", "see http://[…]host/v1?[…]&x=1"),
        ("data:image/png;base64," + "iVBORw0KGgo" * 9, "data:image/png;base64,[…]"),
        ("\x1b[31mred\x07\nnext\u202e", "[31mred next"),
    ],
)
def test_what_a_person_may_read(sentence: str, expected: str) -> None:
    request = ChatRequest("x", [{"role": "user", "content": QUESTION}])
    assert shown(read_fault({"error": {"message": sentence}}), request, KEY) == expected


def test_a_long_or_nested_error_is_cut() -> None:
    request = ChatRequest("x", [{"role": "user", "content": QUESTION}])
    assert len(shown(read_fault("word " * 9000), request, KEY)) < 410
    deep: Any = "x"
    for _ in range(900):
        deep = {"error": deep}
    assert read_fault(deep).sentence == ""
    assert read_fault("[" * 5000).sentence == "[" * 5000
