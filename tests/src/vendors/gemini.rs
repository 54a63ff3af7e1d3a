//! `generateContent` as Google documents it for Gemini and for Vertex AI.
//!
//! **Invariant:** roles alternate, the user speaks first and last, and every call of a function has its
//! response in the next content.

use serde_json::{Value, json};

use super::shape::{self, Checked, list, number, object, text, word};
use super::{
    Asked, Call, KEY, MODEL, PROJECT, REGION, Refused, Reply, Says, TOKENS, Trouble, Vendor,
    WAIT_S, token,
};

const KNOWN: [&str; 6] = [
    "systemInstruction",
    "tools",
    "toolConfig",
    "generationConfig",
    "safetySettings",
    "cachedContent",
];
const CONFIG: [&str; 15] = [
    "temperature",
    "topP",
    "topK",
    "seed",
    "candidateCount",
    "maxOutputTokens",
    "stopSequences",
    "presencePenalty",
    "frequencyPenalty",
    "responseMimeType",
    "responseSchema",
    "responseJsonSchema",
    "responseModalities",
    "mediaResolution",
    "thinkingConfig",
];

pub(super) fn check(vendor: Vendor, call: &Call<'_>) -> Result<Asked, Refused> {
    let model = super::bedrock::encoded(MODEL);
    let is_streamed = call.path.ends_with(":streamGenerateContent");
    let method = if is_streamed { "streamGenerateContent" } else { "generateContent" };
    // Without it the stream is one list of JSON.
    if call.query != if is_streamed { "alt=sse" } else { "" } {
        return Err(Refused::Request(format!("the query {} is not taken", call.query)));
    }
    let path = match vendor {
        Vendor::Vertex => {
            call.shows("authorization", &format!("Bearer {}", token::TOKEN))?;
            format!(
                "/v1/projects/{PROJECT}/locations/{REGION}/publishers/google/models/{model}:{method}"
            )
        }
        _ => {
            call.shows("x-goog-api-key", KEY)?;
            format!("/v1/models/{model}:{method}")
        }
    };
    // Google's own SDK does not encode the colon of a model.
    let plain = Call { path: &call.path.replace(MODEL, &model), ..*call };
    // The betas take what the stable versions do, and the SDK asks for that of Vertex.
    let stable = plain.path.replace("/v1beta1/", "/v1/").replace("/v1beta/", "/v1/");
    let plain = Call { path: &stable, ..plain };
    let body = named_once(&plain.posts_json(&path)?);
    object(&body, "body", &["contents"], &KNOWN)?;
    if !body["systemInstruction"].is_null() {
        object(&body["systemInstruction"], "systemInstruction", &["parts"], &["role"])?;
        text(&body["systemInstruction"]["parts"][0]["text"], "systemInstruction.parts.text")?;
    }
    let mut asked = Asked { stream: is_streamed.then_some(true), ..Asked::default() };
    if !body["generationConfig"].is_null() {
        asked.schema = config(&body["generationConfig"])?;
    }
    let is_answered = contents(list(&body["contents"], "contents")?, &mut asked)?;
    if !body["tools"].is_null() {
        let declared = &body["tools"][0]["functionDeclarations"];
        let mut first = None;
        for function in list(declared, "functionDeclarations")? {
            let known = ["description", "parameters", "parametersJsonSchema", "response"];
            object(function, "functionDeclarations", &["name"], &known)?;
            first.get_or_insert(text(&function["name"], "name")?.to_owned());
        }
        let is_free = !is_answered && body["toolConfig"]["functionCallingConfig"]["mode"] != "NONE";
        asked.tool = first.filter(|_| is_free);
    }
    Ok(asked)
}

/// Protobuf's JSON takes a field by both of its names, `mimeType` and `mime_type`; what is in a schema,
/// in arguments and in responses is not its own.
fn named_once(value: &Value) -> Value {
    const FREE: [&str; 5] =
        ["parametersJsonSchema", "parameters", "responseJsonSchema", "args", "response"];
    match value {
        Value::Array(list) => list.iter().map(named_once).collect(),
        Value::Object(map) => {
            let field = |(name, value): (&String, &Value)| {
                let mut parts = name.split('_');
                let mut camel = parts.next().unwrap_or_default().to_owned();
                for part in parts {
                    let (first, rest) = part.split_at(part.len().min(1));
                    camel += &first.to_ascii_uppercase();
                    camel += rest;
                }
                let is_free = FREE.contains(&camel.as_str());
                (camel, if is_free { value.clone() } else { named_once(value) })
            };
            Value::Object(map.iter().map(field).collect())
        }
        other => other.clone(),
    }
}

fn config(config: &Value) -> Checked<Option<Value>> {
    object(config, "generationConfig", &[], &CONFIG)?;
    number(&config["temperature"], "temperature", 0.0..=2.0)?;
    if config["stopSequences"].as_array().is_some_and(|stops| stops.len() > 5) {
        return Err("stopSequences: at most 5".to_owned());
    }
    let schema = &config["responseJsonSchema"];
    if schema.is_null() {
        return Ok(None);
    }
    word(&config["responseMimeType"], "responseMimeType", &["application/json"])?;
    shape::schema(schema, "responseJsonSchema")?;
    Ok(Some(schema.clone()))
}

fn contents(contents: &[Value], asked: &mut Asked) -> Checked<bool> {
    let mut open: Vec<String> = Vec::new();
    let mut is_answered = false;
    for (at, content) in contents.iter().enumerate() {
        object(content, "contents", &["role", "parts"], &[])?;
        let want = if at % 2 == 0 { "user" } else { "model" };
        word(&content["role"], &format!("contents[{at}].role"), &[want])?;
        is_answered = !open.is_empty();
        for part in list(&content["parts"], "parts")? {
            self::part(want, part, asked, &mut open)?;
        }
        if want == "user" && !open.is_empty() {
            return Err(format!("contents[{at}]: no function response for {open:?}"));
        }
    }
    match contents.len() % 2 {
        1 => Ok(is_answered),
        _ => Err("contents: the last turn must be the user's".to_owned()),
    }
}

fn part(role: &str, part: &Value, asked: &mut Asked, open: &mut Vec<String>) -> Checked<()> {
    let kinds: &[&str] = match role {
        "user" => &["text", "inlineData", "functionResponse"],
        _ => &["text", "functionCall"],
    };
    let is_there = |kind: &&&str| part.get(**kind).is_some();
    let kind = kinds.iter().find(is_there).ok_or_else(|| format!("part: one of {kinds:?}"))?;
    object(part, "part", &[kind], &["thoughtSignature", "thought"])?;
    match *kind {
        "text" => {
            let words = text(&part["text"], "text")?;
            if role == "user" {
                words.clone_into(&mut asked.text);
            }
        }
        "inlineData" => {
            let data = &part["inlineData"];
            object(data, "inlineData", &["mimeType", "data"], &[])?;
            let bytes = shape::bytes(&data["data"], "inlineData.data")?;
            let mime = text(&data["mimeType"], "mimeType")?;
            match mime.split_once('/') {
                Some(("image", "gif")) => return Err("Unsupported MIME type: image/gif".into()),
                Some(("image", _)) => shape::picture(mime, &bytes, "inlineData.data")?,
                Some(("audio", "wav" | "mp3" | "flac" | "ogg" | "aac" | "aiff")) => {}
                _ => return Err(format!("Unsupported MIME type: {mime}")),
            }
            asked.files.push(bytes);
        }
        "functionCall" => {
            let call = &part["functionCall"];
            object(call, "functionCall", &["name"], &["id", "args"])?;
            open.push(text(&call["name"], "name")?.to_owned());
        }
        _ => {
            let response = &part["functionResponse"];
            object(response, "functionResponse", &["name", "response"], &["id"])?;
            if !response["response"].is_object() {
                return Err("functionResponse.response: must be an object".to_owned());
            }
            let name = text(&response["name"], "name")?;
            let place = open.iter().position(|each| each == name);
            open.remove(place.ok_or_else(|| format!("no function call of {name}"))?);
        }
    }
    Ok(())
}

pub(super) fn answer(says: &Says) -> Value {
    let (input, cached, output) = TOKENS;
    let (part, finish) = match says {
        Says::Text(text) => (json!({ "text": text }), "STOP"),
        Says::Cut(text) => (json!({ "text": text }), "MAX_TOKENS"),
        Says::Filtered => {
            return json!({ "promptFeedback": { "blockReason": "PROHIBITED_CONTENT" },
                "usageMetadata": { "promptTokenCount": input, "totalTokenCount": input },
                "modelVersion": MODEL });
        }
        Says::Call(name, args) => {
            let call = json!({ "name": name, "args": args });
            (json!({ "functionCall": call, "thoughtSignature": "c2VhbA==" }), "STOP")
        }
    };
    json!({ "candidates": [{ "content": { "role": "model", "parts": [part] },
            "finishReason": finish, "index": 0 }],
        "usageMetadata": { "promptTokenCount": input, "cachedContentTokenCount": cached,
            // Thoughts are not among the tokens of candidates.
            "candidatesTokenCount": output - 4, "thoughtsTokenCount": 4,
            "totalTokenCount": input + output },
        "modelVersion": MODEL, "responseId": "r-1" })
}

pub(super) fn trouble(trouble: Trouble, what: &str) -> Reply {
    let info = |reason: &str| {
        json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason,
            "domain": "googleapis.com" })
    };
    let (status, name, message, detail) = match trouble {
        Trouble::Transient => (503, "UNAVAILABLE", "The model is overloaded.", None),
        Trouble::Throttled => (
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota, please check your plan and billing details.",
            Some(json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{WAIT_S}s") })),
        ),
        Trouble::OutOfCredit => (
            403,
            "PERMISSION_DENIED",
            "This API method requires billing to be enabled.",
            Some(info("BILLING_DISABLED")),
        ),
        Trouble::BadRequest => (400, "INVALID_ARGUMENT", what, None),
        Trouble::Authentication => (
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            Some(info("API_KEY_INVALID")),
        ),
        // It refuses in an answer.
        Trouble::Safety => return Reply::json(200, vec![], &answer(&Says::Filtered)),
    };
    let mut error = json!({ "code": status, "message": message, "status": name });
    if let Some(detail) = detail {
        error["details"] = json!([detail]);
    }
    Reply::json(status, vec![], &json!({ "error": error }))
}
