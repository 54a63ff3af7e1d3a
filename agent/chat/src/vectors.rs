//! Owns embeddings: what is asked of each provider that has them, and what comes back.
//!
//! Stated conversions: Cohere's models on Bedrock embed documents (`search_document`), since nobody says
//! what for; the end user is told to OpenAI and Azure OpenAI alone.
//!
//! **Invariant:** vectors come back in the order of their inputs, none of them empty.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::conversation::Usage;
use crate::dialect::Malformed;
use crate::unfit::What;

/// Embeddings.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// The model, as the provider calls it; empty where it does not say.
    pub model: String,
    /// One for each input, in their order.
    pub vectors: Vec<Vec<f32>>,
    /// What was counted, if anything was.
    pub usage: Option<Usage>,
}

/// What becomes vectors, in the order in which they are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inputs {
    /// Texts.
    Texts(Vec<String>),
    /// Texts as a model's own tokens.
    Tokens(Vec<Vec<u32>>),
}

impl Inputs {
    /// How many there are.
    pub fn count(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Tokens(tokens) => tokens.len(),
        }
    }

    /// The texts.
    fn texts(&self) -> Result<&[String], What> {
        match self {
            Self::Texts(texts) => Ok(texts),
            Self::Tokens(_) => Err(What::Parameter("input of tokens")),
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) model: &'a str,
    pub(crate) inputs: &'a Inputs,
    pub(crate) dimensions: Option<u32>,
    /// The end user, whom OpenAI's protocol alone has a field for.
    pub(crate) user: Option<&'a str>,
}

impl Asked<'_> {
    fn with(self, mut body: Value, key: &str) -> Value {
        if let Some(dimensions) = self.dimensions {
            body[key] = dimensions.into();
        }
        body
    }

    /// The only input of a protocol that takes one.
    fn only(self) -> Result<String, What> {
        match self.inputs.texts()? {
            [input] => Ok(input.clone()),
            _ => Err(What::TooMuch("number of inputs", 1)),
        }
    }

    /// `POST /v1/embeddings`; Azure has the model in the address.
    pub(crate) fn openai(self, with_model: bool) -> Value {
        let inputs = match self.inputs {
            Inputs::Texts(texts) => json!(texts),
            Inputs::Tokens(tokens) => json!(tokens),
        };
        let mut body = json!({ "input": inputs, "encoding_format": "float" });
        if with_model {
            body["model"] = self.model.into();
        }
        if let Some(user) = self.user {
            body["user"] = user.into();
        }
        self.with(body, "dimensions")
    }

    /// Mistral's.
    pub(crate) fn mistral(self) -> Result<Value, What> {
        let body = json!({ "model": self.model, "input": self.inputs.texts()? });
        Ok(self.with(body, "output_dimension"))
    }

    /// `batchEmbedContents`.
    pub(crate) fn gemini(self, model: &str) -> Result<Value, What> {
        let requests = self.inputs.texts()?.iter().map(|input| {
            let content = json!({ "parts": [{ "text": input }] });
            let body = json!({ "model": format!("models/{model}"), "content": content });
            self.with(body, "outputDimensionality")
        });
        Ok(json!({ "requests": requests.collect::<Vec<_>>() }))
    }

    /// Vertex's `predict`; Gemini's models take one input there.
    pub(crate) fn vertex(self) -> Result<Value, What> {
        if self.model.contains("gemini-embedding") {
            self.only()?;
        }
        let instances: Vec<Value> =
            self.inputs.texts()?.iter().map(|input| json!({ "content": input })).collect();
        let parameters = self.with(json!({}), "outputDimensionality");
        Ok(json!({ "instances": instances, "parameters": parameters }))
    }

    /// Bedrock's `InvokeModel`, for the models whose form is documented here.
    pub(crate) fn bedrock(self) -> Result<Value, What> {
        if self.model.contains("cohere.embed") {
            let is_v4 = self.model.contains("embed-v4");
            if self.dimensions.is_some() && !is_v4 {
                return Err(What::Parameter("dimensions"));
            }
            let body = json!({ "texts": self.inputs.texts()?, "input_type": "search_document",
                "embedding_types": ["float"] });
            return Ok(self.with(body, "output_dimension"));
        }
        if !self.model.contains("titan-embed-text") {
            return Err(What::Parameter("embeddings of this model"));
        }
        if self.dimensions.is_some() && !self.model.contains("titan-embed-text-v2") {
            return Err(What::Parameter("dimensions"));
        }
        Ok(self.with(json!({ "inputText": self.only()? }), "dimensions"))
    }
}

/// A body of any provider; each has some of these.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Body {
    model: Option<String>,
    /// OpenAI's and Mistral's.
    data: Option<Vec<Placed>>,
    usage: Option<Counted>,
    /// Gemini's, and Cohere's.
    embeddings: Option<Value>,
    usage_metadata: Option<Metadata>,
    /// Vertex's.
    predictions: Option<Vec<Predicted>>,
    /// Titan's.
    embedding: Option<Vec<f32>>,
    input_text_token_count: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Placed {
    index: Option<usize>,
    embedding: Vec<f32>,
}

#[derive(Debug, Deserialize)]
struct Counted {
    prompt_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    prompt_token_count: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Predicted {
    embeddings: Values,
}

#[derive(Debug, Deserialize)]
struct Values {
    values: Vec<f32>,
    statistics: Option<Statistics>,
}

#[derive(Debug, Deserialize)]
struct Statistics {
    /// Vertex writes a whole number with a point.
    token_count: Option<f64>,
}

/// The vectors in a body.
pub(crate) fn vectors(body: Body) -> Result<Vectors, Malformed> {
    let missing = || Malformed("no vectors in it".to_owned());
    let mut tokens = body.usage.and_then(|counted| counted.prompt_tokens);
    tokens = tokens.or(body.usage_metadata.and_then(|counted| counted.prompt_token_count));
    tokens = tokens.or(body.input_text_token_count);
    let vectors = if let Some(data) = body.data {
        in_order(data)?
    } else if let Some(predicted) = body.predictions {
        let counted = predicted.iter().map(|one| one.embeddings.statistics.as_ref()?.token_count);
        if let Some(sum) = counted.sum::<Option<f64>>() {
            tokens = whole(sum);
        }
        predicted.into_iter().map(|one| one.embeddings.values).collect()
    } else if let Some(vector) = body.embedding {
        vec![vector]
    } else {
        listed(body.embeddings.ok_or_else(missing)?).ok_or_else(missing)?
    };
    if vectors.is_empty() || vectors.iter().any(Vec::is_empty) {
        return Err(missing());
    }
    let usage = tokens.map(|input| Usage { input, ..Usage::default() });
    Ok(Vectors { model: body.model.unwrap_or_default(), vectors, usage })
}

/// A count that came with a point.
fn whole(count: f64) -> Option<u64> {
    format!("{:.0}", count.max(0.0)).parse().ok()
}

/// By the places that they say.
fn in_order(data: Vec<Placed>) -> Result<Vec<Vec<f32>>, Malformed> {
    let mut vectors = vec![Vec::new(); data.len()];
    for (at, placed) in data.into_iter().enumerate() {
        let slot = vectors.get_mut(placed.index.unwrap_or(at));
        match slot {
            Some(slot) if slot.is_empty() => *slot = placed.embedding,
            _ => return Err(Malformed("vectors are out of their places".to_owned())),
        }
    }
    Ok(vectors)
}

/// Gemini: `[{"values": [...]}]`; Cohere: `[[...]]`, or by their type `{"float": [[...]]}`.
fn listed(embeddings: Value) -> Option<Vec<Vec<f32>>> {
    let list = match embeddings {
        Value::Object(mut map) => map.remove("float")?,
        list => list,
    };
    let Value::Array(list) = list else { return None };
    let each = list.into_iter().map(|one| {
        let one = match one {
            Value::Object(mut map) => Map::remove(&mut map, "values")?,
            one => one,
        };
        serde_json::from_value(one).ok()
    });
    each.collect()
}
