//! Owns asking a server of models for a task, by the Open Inference Protocol over HTTP: the task's bundle on
//! this device makes the tensors that go out, and the answer of those that come back.
//!
//! Tensors go in binary, and in JSON where the server tells its extensions without that one, or answers it with
//! 400 or another refusal of its form.
//!
//! **Invariant:** nothing of a request goes to a model whose tensors are said to be otherwise than the
//! bundle's; what came back is the bundle's outputs, each of its type and shape, or an error.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holdfast_models::runtime::TensorSpec;
use holdfast_models::{Bundle, InferError, Relay, Tensor};
use tokio::time::{Instant, timeout};

use super::error::{Fault, SendError, clean};
use super::exchange::Exchange;
use super::http::{Call, Method, Reply};
use super::proof;
use crate::answer::Answer;
use crate::destination::{Destination, Oip};
use crate::oip::outgoing::{self, Given, JSON_LENGTH, Metadata};
use crate::outcome::Said;
use crate::request::{Request, TaskName};

/// The bundles of this device, by task.
#[derive(Clone)]
pub struct Bundles(Arc<Find>);

type Find = dyn Fn(&TaskName) -> Option<Bundle> + Send + Sync;

impl Bundles {
    /// Those that `find` finds; it does not block.
    pub fn from_fn(find: impl Fn(&TaskName) -> Option<Bundle> + Send + Sync + 'static) -> Self {
        Self(Arc::new(find))
    }
}

impl Default for Bundles {
    fn default() -> Self {
        Self::from_fn(|_| None)
    }
}

impl fmt::Debug for Bundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bundles")
    }
}

/// What is known of the models of one destination, until one of them fails.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<TaskName, Model>>);

/// What is known of the model of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Model {
    /// The bundle whose tensors it takes and gives.
    fits: [u8; 32],
    /// The form in which it took some.
    form: Option<Form>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Binary,
    Json,
}

impl Known {
    fn of(&self, task: &TaskName, bundle: &Bundle) -> Option<Model> {
        self.models().get(task).filter(|model| model.fits == *bundle.digest()).copied()
    }

    fn note(&self, task: &TaskName, bundle: &Bundle, form: Option<Form>) {
        self.models().insert(task.clone(), Model { fits: *bundle.digest(), form });
    }

    fn forget(&self, task: &TaskName) {
        self.models().remove(task);
    }

    /// What a panicked holder left is whole all the same.
    fn models(&self) -> MutexGuard<'_, HashMap<TaskName, Model>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request with the tensors of its first window.
#[derive(Debug)]
pub(super) struct Prepared {
    relay: Relay,
    began: Instant,
}

impl Prepared {
    /// Bytes of the tensors of all its windows.
    pub(super) fn bytes(&self) -> u64 {
        let of = |tensor: &Tensor| tensor.len().saturating_mul(tensor.dtype().bytes());
        let window: usize = self.relay.inputs().iter().map(of).sum();
        u64::try_from(window.saturating_mul(self.relay.windows())).unwrap_or(u64::MAX)
    }
}

/// Makes the tensors of `request`, off the reactor, `within` that time.
pub(super) async fn prepare(
    destination: &Destination,
    request: &Request,
    bundles: &Bundles,
    within: Duration,
) -> Result<Prepared, SendError> {
    let (began, name) = (Instant::now(), || destination.name.clone());
    let bundle = (bundles.0)(&request.task)
        .ok_or_else(|| SendError::NoBundle { destination: name(), task: request.task.clone() })?;
    let media = request.media.clone();
    let begun = tokio::task::spawn_blocking(move || Relay::begin(&bundle, &media));
    let begun = timeout(within, begun).await.map_err(|_| SendError::Interrupted {
        destination: name(),
        cause: "its time was over before its tensors were made".to_owned(),
        waited: None,
    })?;
    let unprepared = |cause: String| SendError::Unprepared { destination: name(), cause };
    let begun = begun.map_err(|panic| unprepared(format!("preprocessing panicked: {panic}")))?;
    let relay = begun.map_err(|error| unprepared(clean(&crate::error_chain(&error))))?;
    Ok(Prepared { relay, began })
}

/// Has the model that does the task run on the request's tensors, and makes its answer.
pub(super) async fn ask(
    exchange: &Exchange<'_>,
    oip: &Oip,
    request: &Request,
    prepared: Prepared,
) -> Result<Answer, SendError> {
    // Each window is a call, and all share the time: one that has none left says nothing of the link.
    let rest = exchange.going_on();
    let asked = Asked { exchange, oip, request };
    let answer = asked.answer(prepared, Asked { exchange: &rest, oip, request }).await;
    if answer.is_err() {
        // It may be another model by now, or another server.
        exchange.known().forget(&request.task);
    }
    answer
}

/// What is asked of whom.
struct Asked<'a> {
    exchange: &'a Exchange<'a>,
    oip: &'a Oip,
    request: &'a Request,
}

impl Asked<'_> {
    async fn answer(
        &self,
        Prepared { mut relay, began }: Prepared,
        further: Asked<'_>,
    ) -> Result<Answer, SendError> {
        self.check(relay.bundle()).await?;
        let mut model = None;
        loop {
            let asked = if model.is_none() { self } else { &further };
            let given = asked.run(&relay).await?;
            let outputs = self.in_order(relay.bundle(), given.outputs)?;
            model.get_or_insert((given.model, given.version));
            let taken = tokio::task::spawn_blocking(move || {
                let is_next = relay.take(outputs);
                (relay, is_next)
            });
            let (own, is_next) = taken.await.map_err(|panic| self.unread(&panic))?;
            relay = own;
            if !is_next.map_err(|error| self.no_answer(&error))? {
                break;
            }
        }
        let finished = tokio::task::spawn_blocking(move || relay.finish()).await;
        let inference = finished.map_err(|panic| self.unread(&panic))?;
        let said = Said::of(inference.map_err(|error| self.no_answer(&error))?);
        let Destination { name, zone, .. } = self.exchange.destination();
        Ok(Answer {
            label: said.label,
            confidence: said.confidence,
            classes: said.classes,
            outcome: said.outcome,
            recorded: said.recorded,
            zone: *zone,
            place: name.clone(),
            model: self.shown(model.unwrap_or_default()),
            took_ms: crate::answer::millis(began.elapsed()),
            provisional: false,
            cost_micros: None,
        })
    }

    /// Sees once whether the model's tensors are the bundle's, as far as its server tells.
    async fn check(&self, bundle: &Bundle) -> Result<(), SendError> {
        let (known, task) = (self.exchange.known(), &self.request.task);
        if known.of(task, bundle).is_some() {
            return Ok(());
        }
        let (headers, body) = (Vec::new(), Bytes::new());
        let proof = proof::bearer(self.exchange.secret());
        let call = Call { method: Method::Get, url: self.url(""), headers, proof, body };
        let reply = self.exchange.call(call).await.map_err(|error| self.missing(error))?;
        let metadata: Metadata = self.exchange.json(&reply)?;
        if let Some(what) = metadata.unfit(bundle.inputs(), bundle.outputs()) {
            return Err(self.misfit(bundle, &what));
        }
        let form = match self.oip.is_binary {
            true => self.told_form().await?,
            false => None,
        };
        known.note(task, bundle, form);
        Ok(())
    }

    /// The form of a server that tells its extensions; some break off the connection over another one.
    async fn told_form(&self) -> Result<Option<Form>, SendError> {
        let url = format!("{}/v2", self.exchange.destination().url);
        let (headers, body) = (Vec::new(), Bytes::new());
        let proof = proof::bearer(self.exchange.secret());
        let call = Call { method: Method::Get, url, headers, proof, body };
        match self.exchange.call(call).await {
            Ok(reply) => Ok((!outgoing::may_take_binary(&reply.body)).then_some(Form::Json)),
            Err(SendError::Refused { .. } | SendError::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs the model on the tensors that are there, in the form that it takes.
    async fn run(&self, relay: &Relay) -> Result<Given, SendError> {
        let (known, task, bundle) = (self.exchange.known(), &self.request.task, relay.bundle());
        let form = known.of(task, bundle).and_then(|model| model.form);
        let first = match form {
            _ if !self.oip.is_binary => Form::Json,
            None => Form::Binary,
            Some(form) => form,
        };
        let (given, taken) = match self.infer(relay, first).await {
            // A server without the extension takes it for bad JSON, or an unknown type of content.
            Err(SendError::Refused { status: 400 | 406 | 415 | 422, .. })
                if form.is_none() && first == Form::Binary =>
            {
                (self.infer(relay, Form::Json).await?, Form::Json)
            }
            // Some fail on it.
            Err(SendError::Failed { status: 500, .. })
                if form.is_none() && first == Form::Binary =>
            {
                (self.infer(relay, Form::Json).await?, Form::Json)
            }
            given => (given?, first),
        };
        known.note(task, bundle, Some(taken));
        Ok(given)
    }

    async fn infer(&self, relay: &Relay, form: Form) -> Result<Given, SendError> {
        let names = |specs: &[TensorSpec]| -> Vec<String> {
            specs.iter().map(|spec| spec.name.clone()).collect()
        };
        let bundle = relay.bundle();
        let (taken, given) = (names(bundle.inputs()), names(bundle.outputs()));
        let inputs: Vec<_> = taken.iter().map(String::as_str).zip(relay.inputs()).collect();
        let outputs: Vec<_> = given.iter().map(String::as_str).collect();
        let id = self.request.id.to_string();
        let written = outgoing::request(&id, &inputs, &outputs, form == Form::Binary);
        let (body, json_length) = written.map_err(|error| SendError::Unprepared {
            destination: self.exchange.name(),
            cause: error.to_string(),
        })?;
        let mut headers = vec![("idempotency-key", id)];
        match json_length {
            Some(length) => {
                headers.push(("content-type", "application/octet-stream".to_owned()));
                headers.push((JSON_LENGTH, length.to_string()));
            }
            None => headers.push(("content-type", "application/json".to_owned())),
        }
        let proof = proof::bearer(self.exchange.secret());
        let (url, body) = (self.url("/infer"), Bytes::from(body));
        let call = Call { method: Method::Post, url, headers, proof, body };
        self.read(&self.exchange.call(call).await.map_err(|error| self.missing(error))?)
    }

    fn read(&self, reply: &Reply) -> Result<Given, SendError> {
        let told = reply.told.iter().find(|(name, _)| name == JSON_LENGTH);
        let length = told.and_then(|(_, length)| length.trim().parse().ok());
        if length.is_none() {
            self.exchange.json_body(reply)?;
        }
        outgoing::answer(&reply.body, length).map_err(|what| self.foreign(&what))
    }

    /// The outputs in the bundle's order, each of its type and shape.
    fn in_order(
        &self,
        bundle: &Bundle,
        mut given: Vec<(String, Tensor)>,
    ) -> Result<Vec<Tensor>, SendError> {
        let take = |spec: &TensorSpec| {
            let at = given.iter().position(|(name, _)| *name == spec.name);
            let Some(at) = at else {
                return Err(self.foreign(&format!("there is no output {:?} in it", spec.name)));
            };
            let (_, tensor) = given.swap_remove(at);
            if tensor.dtype() == spec.dtype && tensor.shape() == spec.shape {
                return Ok(tensor);
            }
            let (name, dtype, shape) = (&spec.name, tensor.dtype(), tensor.shape());
            // It has the input by now: a failure like any other, and no look beforehand.
            Err(self.foreign(&format!("its output {name:?} was {dtype} {shape:?}, not {spec}")))
        };
        bundle.outputs().iter().map(take).collect()
    }

    fn url(&self, end: &str) -> String {
        let base = &self.exchange.destination().url;
        let model = self.exchange.destination().model(self.request.task.as_str());
        format!("{base}{}{end}", outgoing::path(model, self.oip.version.as_deref()))
    }

    /// A model that is not there is waited for, where the operator says by name that the destination does
    /// the task: servers answer before their models are loaded.
    fn missing(&self, error: SendError) -> SendError {
        match error {
            SendError::Refused { destination, status: status @ 404, detail, .. }
                if !self.exchange.destination().tasks.is_empty() =>
            {
                SendError::Failed { destination, status, detail }
            }
            other => other,
        }
    }

    fn misfit(&self, bundle: &Bundle, what: &str) -> SendError {
        SendError::Misfit {
            destination: self.exchange.name(),
            task: self.request.task.clone(),
            bundle: bundle.name().to_owned(),
            what: self.exchange.told(what),
        }
    }

    fn foreign(&self, what: &str) -> SendError {
        self.exchange.unusable(Fault::Foreign { what: self.exchange.told(what) })
    }

    /// What the model gave means nothing, and would again.
    fn no_answer(&self, error: &InferError) -> SendError {
        let what = self.exchange.told(&crate::error_chain(error));
        self.exchange.unusable(Fault::BesideTheQuestion { what })
    }

    fn unread(&self, panic: &tokio::task::JoinError) -> SendError {
        let what = format!("none: reading it panicked: {panic}");
        self.exchange.unusable(Fault::BesideTheQuestion { what })
    }

    /// The model as it says that it is called.
    fn shown(&self, (model, version): (String, String)) -> String {
        let own = self.exchange.destination().model(self.request.task.as_str());
        let model = if model.is_empty() { own.to_owned() } else { model };
        let shown = match version.is_empty() {
            true => model,
            false => format!("{model}@{version}"),
        };
        self.exchange.told(&shown)
    }
}
