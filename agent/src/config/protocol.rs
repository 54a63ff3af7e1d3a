//! Owns the reading of what a destination speaks, and of what only some protocols have.
//!
//! **Invariant:** each protocol has all that it needs, and nothing that it does not know.

use holdfast_chat::Dialect;

use super::destinations::MOST_MICROS;
use super::reader::Section;
use crate::destination::{Chat, Oip, Prices, Protocol};

/// The words for protocols.
const PROTOCOLS: [&str; 9] = [
    "holdfast",
    "openai",
    "azure-openai",
    "anthropic",
    "gemini",
    "vertex",
    "bedrock",
    "mistral",
    "oip",
];

/// Keys of one section that say what is asked, as they are given.
struct Given {
    model: Option<String>,
    deployment: Option<String>,
    api_version: Option<String>,
    region: Option<String>,
    project: Option<String>,
    version: Option<String>,
}

/// The protocol, and the address that everybody has for it, if there is one.
pub(super) fn read(section: &mut Section<'_>) -> (Option<Protocol>, Option<String>) {
    let word = section.text("protocol").unwrap_or_else(|| "holdfast".to_owned());
    let mut given = Given {
        model: section.text("model"),
        deployment: section.text("deployment"),
        api_version: section.text("api_version"),
        region: section.text("region"),
        project: section.text("project"),
        version: section.text("version"),
    };
    let max_tokens = section.optional_integer("max_output_tokens", 1..=1_000_000);
    let Some(word) = PROTOCOLS.into_iter().find(|each| *each == word) else {
        let all = PROTOCOLS.join(", ");
        section.fault("protocol", format!("is \"{word}\", must be one of {all}"));
        return (None, None);
    };
    let is_tensors = word == "oip";
    let helper = given.model.take_if(|model| word == "holdfast" && !model.trim().is_empty());
    let oip = is_tensors.then(|| read_oip(section, &mut given));
    let chat = read_chat(section, word, &mut given);
    for (key, left) in [
        ("model", given.model),
        ("deployment", given.deployment),
        ("api_version", given.api_version),
        ("region", given.region),
        ("project", given.project),
        ("version", given.version),
    ] {
        if left.is_some() {
            section.fault(key, format!("is given, and the protocol {word} has none: remove it"));
        }
    }
    if word == "holdfast" || is_tensors {
        if max_tokens.is_some() {
            let what = format!("is given, and the protocol {word} has none: remove it");
            section.fault("max_output_tokens", what);
        }
        let holdfast = helper.map_or(Protocol::Holdfast, |model| {
            Protocol::HoldfastModel(Chat::new(Dialect::OpenAi, &model))
        });
        return (Some(oip.map_or(holdfast, Protocol::Oip)), None);
    }
    // A fault of another key does not make the address one that has to be given.
    let Some((dialect, model)) = chat else { return (None, Some("https://unknown".to_owned())) };
    let url = usual_url(&dialect);
    let max_tokens = max_tokens.and_then(|most| u32::try_from(most).ok());
    (Some(Protocol::Chat(Chat { dialect, model, max_tokens })), url)
}

/// The model that a server of tensors is asked; its name and version become parts of the address.
fn read_oip(section: &mut Section<'_>, given: &mut Given) -> Oip {
    let name = |key: &str, value: Option<String>| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || [b'.', b'-', b'_'].contains(&b);
        let value = value?;
        let is_name = !value.is_empty() && value.len() <= 200 && value.bytes().all(fits);
        if !is_name || value.starts_with('.') {
            section.fault(key, format!("is \"{value}\", must be of letters, digits, ., - and _"));
        }
        Some(value)
    };
    let model = name("model", given.model.take());
    let version = name("version", given.version.take());
    Oip { model, version, is_binary: section.boolean("binary_tensors", true) }
}

/// The dialect and the model that a protocol's own keys name.
fn read_chat(section: &Section<'_>, word: &str, given: &mut Given) -> Option<(Dialect, String)> {
    let need = |key: &str, value: Option<String>, what: &str| {
        let value = value.filter(|text| !text.trim().is_empty());
        if value.is_none() {
            section.fault(key, format!("is missing, must name the {what} that {word} is asked in"));
        }
        value
    };
    let region = |value: Option<String>| {
        let value = need("region", value, "region")?;
        // It becomes a part of the address.
        let is_name =
            value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !is_name {
            section.fault("region", format!("is \"{value}\", must be of a-z, 0-9 and -"));
        }
        is_name.then_some(value)
    };
    let mut model = || {
        let value = given.model.take().filter(|text| !text.trim().is_empty());
        if value.is_none() {
            section.fault(
                "model",
                format!("is missing, must name the model that {word} is asked for"),
            );
        }
        value
    };
    match word {
        "openai" => Some((Dialect::OpenAi, model()?)),
        "mistral" => Some((Dialect::Mistral, model()?)),
        "anthropic" => Some((Dialect::Anthropic, model()?)),
        "gemini" => Some((Dialect::Gemini, model()?)),
        "azure-openai" => {
            let deployment = need("deployment", given.deployment.take(), "deployment");
            let version = need("api_version", given.api_version.take(), "version of the API");
            let (deployment, api_version) = (deployment?, version?);
            let model = deployment.clone();
            Some((Dialect::AzureOpenAi { deployment, api_version }, model))
        }
        "vertex" => {
            let model = model();
            let project = need("project", given.project.take(), "project");
            let region = region(given.region.take());
            Some((Dialect::Vertex { project: project?, region: region? }, model?))
        }
        "bedrock" => {
            let model = model();
            let region = region(given.region.take());
            Some((Dialect::Bedrock { region: region? }, model?))
        }
        _ => None,
    }
}

/// Where a provider is, if it is in one place.
fn usual_url(dialect: &Dialect) -> Option<String> {
    match dialect {
        // Anybody speaks it, and each customer has a resource of their own.
        Dialect::OpenAi | Dialect::AzureOpenAi { .. } => None,
        Dialect::Mistral => Some("https://api.mistral.ai".to_owned()),
        Dialect::Anthropic => Some("https://api.anthropic.com".to_owned()),
        Dialect::Gemini => Some("https://generativelanguage.googleapis.com".to_owned()),
        Dialect::Vertex { region, .. } if region == "global" => {
            Some("https://aiplatform.googleapis.com".to_owned())
        }
        // The regions of several countries have addresses of another form.
        Dialect::Vertex { region, .. } if region == "eu" || region == "us" => {
            Some(format!("https://aiplatform.{region}.rep.googleapis.com"))
        }
        Dialect::Vertex { region, .. } => {
            Some(format!("https://{region}-aiplatform.googleapis.com"))
        }
        Dialect::Bedrock { region } => {
            let domain = match region.split('-').next() {
                Some("cn") => "amazonaws.com.cn",
                Some("eusc") => "amazonaws.eu",
                _ => "amazonaws.com",
            };
            Some(format!("https://bedrock-runtime.{region}.{domain}"))
        }
    }
}

/// Why what is asked is not in one region, if it is not: then it is nobody's private zone.
pub(super) fn unpinned(protocol: &Protocol) -> Option<&'static str> {
    let Protocol::Chat(Chat { dialect, model, .. }) = protocol else { return None };
    match dialect {
        Dialect::Vertex { region, .. } if region == "global" => {
            Some("the region global is anywhere")
        }
        Dialect::Bedrock { .. } if model.starts_with("global.") => {
            Some("a global inference profile is anywhere")
        }
        _ => None,
    }
}

/// Prices of what is in a request.
pub(super) fn read_prices(section: &mut Section<'_>) -> Prices {
    let mut price = |key| section.integer(key, 0..=MOST_MICROS, 0);
    Prices {
        million_tokens_in: price("price_per_million_tokens_in_micros"),
        million_tokens_out: price("price_per_million_tokens_out_micros"),
        image: price("price_per_image_micros"),
        audio_second: price("price_per_audio_second_micros"),
    }
}
