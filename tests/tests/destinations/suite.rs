//! What every destination has to do, whoever it is.

use std::path::Path;
use std::time::Duration;

use holdfast_agent::answer::Answer;
use holdfast_agent::audit::Audit;
use holdfast_agent::clock::Clock;
use holdfast_agent::destination::{
    Chat, Credential, Destination, Limits, Prices, Protocol, Transport, Zone,
};
use holdfast_agent::escalate::{
    Escalator, Fault, Hints, Next as ToDo, Purse, SendError, TaskHints,
};
use holdfast_agent::policy::Policy;
use holdfast_agent::queue::RequestId;
use holdfast_agent::request::{DataClass, Escalate, Priority, Request, TaskName};
use holdfast_chat::Dialect;
use holdfast_models::Media;
use holdfast_tests::vendors::{
    API_VERSION, Fake, KEY, MODEL, Next, PROJECT, REGION, Reply, Says, TOKENS, Trouble, Vendor,
    WAIT_S,
};
use serde_json::json;

/// Long enough for any exchange on loopback.
pub(crate) const PLENTY: Duration = Duration::from_secs(20);
pub(crate) const PRICES: Prices = Prices {
    million_tokens_in: 3_000_000,
    million_tokens_out: 15_000_000,
    image: 700,
    audio_second: 100,
};

/// A provider's stand-in, and what asks it.
pub(crate) struct Bench {
    pub(crate) vendor: Vendor,
    pub(crate) fake: Fake,
    pub(crate) destination: Destination,
    pub(crate) escalator: Escalator,
    pub(crate) dir: tempfile::TempDir,
}

fn dialect(vendor: Vendor) -> Dialect {
    match vendor {
        Vendor::OpenAi => Dialect::OpenAi,
        Vendor::AzureOpenAi => Dialect::AzureOpenAi {
            deployment: MODEL.to_owned(),
            api_version: API_VERSION.to_owned(),
        },
        Vendor::Mistral => Dialect::Mistral,
        Vendor::Anthropic => Dialect::Anthropic,
        Vendor::Gemini => Dialect::Gemini,
        Vendor::Vertex => {
            Dialect::Vertex { project: PROJECT.to_owned(), region: REGION.to_owned() }
        }
        Vendor::Bedrock => Dialect::Bedrock { region: REGION.to_owned() },
    }
}

pub(crate) fn escalator(destination: &Destination, dir: &Path) -> Escalator {
    let hints = TaskHints {
        labels: ["good", "scratched", "cracked"].map(str::to_owned).to_vec(),
        description: "which fault a part has.".to_owned(),
    };
    let hints = Hints::from([(TaskName::parse("look").unwrap(), hints)]);
    let destinations = std::slice::from_ref(destination);
    let purse = Purse::open(dir, Clock::resume(dir), destinations);
    Escalator::new(destinations, hints, purse, Audit::default()).unwrap()
}

impl Bench {
    pub(crate) async fn new(vendor: Vendor) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start(vendor).await.unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, vendor.credential(&fake.url)).unwrap();
        let destination = Destination {
            name: vendor.name().to_owned(),
            zone: Zone::Private,
            protocol: Protocol::Chat(Chat::new(dialect(vendor), MODEL)),
            url: fake.url.clone(),
            credential: Some(Credential::File(key)),
            tasks: Vec::new(),
            transport: Transport::default(),
            connect_timeout: PLENTY,
            timeout: PLENTY,
            concurrency: 4,
            limits: Limits { price_micros: 10, prices: PRICES, ..Limits::default() },
        };
        let escalator = escalator(&destination, dir.path());
        Self { vendor, fake, destination, escalator, dir }
    }

    pub(crate) async fn send(&self, request: &Request) -> Result<Answer, SendError> {
        let cleared = Policy::default().clear(request, &self.destination).unwrap();
        self.escalator.send(cleared, PLENTY).await
    }

    /// What a send fails with after `next`; the error shows nothing of the credential.
    pub(crate) async fn fails(&self, next: Next) -> SendError {
        self.fake.next(next);
        let error = self.send(&picture()).await.expect_err(self.vendor.name());
        let shown = format!("{error} {error:?} {:?}", self.escalator);
        assert!(!shown.contains("0123456789"), "{}: {shown}", self.vendor.name());
        error
    }
}

fn request(media: Media) -> Request {
    Request {
        id: RequestId::new(),
        task: TaskName::parse("look").unwrap(),
        media,
        class: DataClass::Internal,
        priority: Priority::default(),
        escalate: Escalate::Auto,
        deadline_ms: 800,
        ttl_ms: 60_000,
        not_before_ms: 0,
        key: None,
        hops: 0,
    }
}

/// One grey pixel.
fn png() -> Vec<u8> {
    let png = hex::decode(concat!(
        "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55",
        "0000000a49444154789c63680000008200817dd0fb1a0000000049454e44ae426082"
    ));
    png.unwrap()
}

pub(crate) fn picture() -> Request {
    request(Media::detect(png(), Some("image/png")).unwrap())
}

/// A second and a half of silence.
fn recording() -> Request {
    let mut wav = Vec::from(*b"RIFF\xa4\xbb\0\0WAVEfmt \x10\0\0\0");
    for field in [1_u16, 1, 16_000, 0, 32_000, 0, 2, 16] {
        wav.extend(field.to_le_bytes());
    }
    wav.extend(*b"data\x80\xbb\0\0");
    wav.resize(44 + 48_000, 0);
    request(Media::detect(wav, Some("audio/wav")).unwrap())
}

#[tokio::test]
async fn a_picture_becomes_a_label_and_its_cost_is_what_was_counted() {
    for vendor in Vendor::ALL {
        let bench = Bench::new(vendor).await;
        let answer = bench.send(&picture()).await;
        let refused = bench.fake.refused();
        let answer = answer.unwrap_or_else(|error| panic!("{vendor:?}: {error} {refused:?}"));
        assert_eq!(
            (answer.label.as_str(), answer.confidence),
            ("cracked", Some(0.97)),
            "{vendor:?}"
        );
        assert_eq!((answer.zone, answer.place.as_str()), (Zone::Private, vendor.name()));
        assert_eq!(answer.model, MODEL, "{vendor:?}");
        assert_eq!(bench.fake.files(), [png()], "{vendor:?}: the file arrives as it is");
        let (tokens_in, _, tokens_out) = TOKENS;
        let cost = 10 + tokens_in * 3 + tokens_out * 15 + 700;
        assert_eq!(answer.cost_micros, Some(cost), "{vendor:?}");
    }
}

#[tokio::test]
async fn a_recording_goes_where_the_protocol_has_it_and_else_nothing_does() {
    for vendor in Vendor::ALL {
        let bench = Bench::new(vendor).await;
        let sent = bench.send(&recording()).await;
        if vendor.takes_audio() {
            let refused = bench.fake.refused();
            let answer = sent.unwrap_or_else(|error| panic!("{vendor:?}: {error} {refused:?}"));
            let (tokens_in, _, tokens_out) = TOKENS;
            let cost = 10 + tokens_in * 3 + tokens_out * 15 + 150;
            assert_eq!((answer.label.as_str(), answer.cost_micros), ("cracked", Some(cost)));
        } else {
            let error = sent.unwrap_err();
            assert!(matches!(error, SendError::Unfit { .. }), "{vendor:?}: {error}");
            assert_eq!((error.next(), error.may_cost()), (ToDo::NotHere, false), "{vendor:?}");
            assert_eq!(bench.fake.asked(), 0, "{vendor:?}: {error}");
        }
    }
}

#[tokio::test]
async fn each_documented_error_is_acted_on_by_its_class() {
    let operator = ToDo::AwaitOperator { after: Duration::from_secs(60) };
    for vendor in Vendor::ALL {
        let wait = if vendor.tells_wait() { WAIT_S } else { 5 };
        let later = ToDo::Later { after: Duration::from_secs(wait) };
        for (trouble, code, next) in [
            (Trouble::Transient, "failed", ToDo::Retry),
            (Trouble::Throttled, "throttled", later),
            (Trouble::OutOfCredit, "out_of_credit", operator),
            (Trouble::BadRequest, "refused", ToDo::NotHere),
            (Trouble::Authentication, "unauthorised", operator),
            (Trouble::Safety, "unusable", ToDo::NotHere),
        ] {
            let bench = Bench::new(vendor).await;
            let error = bench.fails(Next::Fails(trouble)).await;
            assert_eq!((error.code(), error.next()), (code, next), "{vendor:?}: {error}");
            let is_filtered = matches!(
                &error,
                SendError::Unusable { fault: Fault::Filtered | Fault::NotLetThrough, .. }
            );
            assert_eq!(is_filtered, trouble == Trouble::Safety, "{vendor:?}: {error}");
            assert!(bench.escalator.is_reachable(vendor.name()), "any status is a link that is up");
            let rests = matches!(next, ToDo::Later { .. } | ToDo::AwaitOperator { .. });
            let again = bench.send(&picture()).await;
            assert_eq!(again.is_err(), rests, "{vendor:?}: after {error}: {again:?}");
            let asked = if rests { 1 } else { 2 };
            assert_eq!(bench.fake.asked(), asked, "{vendor:?}: what rests is not asked");
        }
    }
}

#[tokio::test]
async fn a_wrong_credential_is_not_shown_and_one_that_is_renewed_is_used_at_once() {
    for vendor in Vendor::ALL {
        let bench = Bench::new(vendor).await;
        let path = bench.dir.path().join("key");
        let right = std::fs::read_to_string(&path).unwrap();
        let wrong = match vendor {
            // A token that is none, instead of an account.
            Vendor::Vertex => "ya29.wrong-0123456789abcdef".to_owned(),
            _ => right.replace(KEY, "sk-wrong-0123456789abcdef"),
        };
        std::fs::write(&path, wrong).unwrap();
        let error = bench.send(&picture()).await.unwrap_err();
        assert!(matches!(error, SendError::Unauthorised { .. }), "{vendor:?}: {error}");
        let shown = format!("{error} {error:?} {:?}", bench.escalator);
        assert!(!shown.contains("0123456789"), "{vendor:?}: {shown}");
        assert_eq!(bench.send(&picture()).await.unwrap_err().code(), "unauthorised");
        assert_eq!(bench.fake.asked(), 1, "{vendor:?}: a refused credential rests");
        std::fs::write(&path, right).unwrap();
        let answer = bench.send(&picture()).await.unwrap();
        assert_eq!(answer.label, "cracked", "{vendor:?}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_a_fault_and_never_a_label() {
    let text = |text: &str| Next::Says(Says::Text(text.to_owned()));
    let sends = |body: &str| {
        Next::Sends(Reply { status: 200, headers: vec![], body: body.to_owned().into() })
    };
    let page = |kind: &str| {
        let headers = vec![("content-type", kind.to_owned())];
        Next::Sends(Reply { status: 200, headers, body: "<html>sign in</html>".into() })
    };
    for vendor in Vendor::ALL {
        for (case, next, want, to_do) in [
            ("prose", text("It is cracked."), "not the JSON", ToDo::NotHere),
            ("another label", text(r#"{"label":"fine","confidence":1}"#), "fine", ToDo::NotHere),
            ("too sure", text(r#"{"label":"good","confidence":7}"#), "of 7", ToDo::NotHere),
            ("cut", Next::Says(Says::Cut("{\"la".to_owned())), "length limit", ToDo::NotHere),
            ("filtered", Next::Says(Says::Filtered), "", ToDo::NotHere),
            (
                "a tool",
                Next::Says(Says::Call("x".to_owned(), json!({}))),
                "calls tools",
                ToDo::Retry,
            ),
            ("truncated", sends("{\"id\": \"1\", \"cho"), "JSON is wrong", ToDo::Retry),
            ("no JSON", sends("hello"), "JSON is wrong", ToDo::Retry),
            ("empty", sends(""), "JSON is wrong", ToDo::Retry),
            ("another API", sends("{\"hello\": 1}"), "", ToDo::Retry),
            ("a list", sends("[]"), "", ToDo::Retry),
            ("a portal", page("text/html"), "text/html", ToDo::Retry),
            ("too long", sends(&" ".repeat(2 << 20)), "more than 1048576 bytes", ToDo::NotHere),
        ] {
            let bench = Bench::new(vendor).await;
            let error = bench.fails(next).await;
            assert_eq!(error.code(), "unusable", "{vendor:?} {case}: {error}");
            assert_eq!(error.next(), to_do, "{vendor:?} {case}: {error}");
            assert!(error.to_string().contains(want), "{vendor:?} {case}: {error}");
        }
    }
}

#[tokio::test]
async fn a_status_says_what_to_do_when_the_body_does_not() {
    for vendor in Vendor::ALL {
        for (status, code) in [
            (400, "refused"),
            (401, "unauthorised"),
            (402, "out_of_credit"),
            (403, "unauthorised"),
            (404, "refused"),
            (408, "failed"),
            (413, "refused"),
            (429, "throttled"),
            (500, "failed"),
            (502, "failed"),
            (503, "failed"),
            (504, "failed"),
        ] {
            let bench = Bench::new(vendor).await;
            let reply = Reply { status, headers: vec![], body: "<html>no</html>".into() };
            let error = bench.fails(Next::Sends(reply)).await;
            assert_eq!(error.code(), code, "{vendor:?} {status}: {error}");
        }
        let bench = Bench::new(vendor).await;
        let date = ("date", "Fri, 20 Nov 2026 12:00:00 GMT".to_owned());
        let after = ("retry-after", "Fri, 20 Nov 2026 12:00:42 GMT".to_owned());
        let reply = Reply { status: 503, headers: vec![date, after], body: "".into() };
        let error = bench.fails(Next::Sends(reply)).await;
        let later = ToDo::Later { after: Duration::from_secs(42) };
        assert_eq!(error.next(), later, "{vendor:?}: {error}");
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    for vendor in Vendor::ALL {
        let elsewhere = Fake::start(vendor).await.unwrap();
        for status in [301, 302, 307, 308] {
            let bench = Bench::new(vendor).await;
            let headers = vec![("location", format!("{}/v1/elsewhere", elsewhere.url))];
            let reply = Reply { status, headers, body: "".into() };
            let error = bench.fails(Next::Sends(reply)).await;
            assert_eq!((error.code(), error.next()), ("unusable", ToDo::Retry), "{vendor:?}");
        }
        assert_eq!(elsewhere.asked(), 0, "{vendor:?}");
    }
}

#[tokio::test]
async fn what_the_class_keeps_here_never_arrives() {
    for vendor in Vendor::ALL {
        let mut bench = Bench::new(vendor).await;
        for zone in [Zone::Private, Zone::Public] {
            bench.destination.zone = zone;
            for class in [DataClass::Restricted, DataClass::Confidential, DataClass::Internal] {
                let request = Request { class, ..picture() };
                let cleared = Policy::default().clear(&request, &bench.destination);
                let may_go = class == DataClass::Internal && zone == Zone::Private;
                assert_eq!(cleared.is_ok(), may_go, "{vendor:?} {class} {zone}");
            }
        }
        assert_eq!(bench.fake.asked(), 0);
    }
}

#[tokio::test]
async fn what_is_set_apart_is_given_back_when_the_answer_cost_less() {
    let limits = Limits {
        prices: Prices {
            million_tokens_in: 1_000_000,
            million_tokens_out: 1_000_000,
            ..Prices::default()
        },
        // Set apart for one are 8192 and 4096 tokens; one that is answered costs 129.
        budget_micros: Some(12_288 + 2 * 129),
        ..Limits::default()
    };
    let mut bench = Bench::new(Vendor::Anthropic).await;
    bench.destination.limits = limits;
    bench.escalator = escalator(&bench.destination, bench.dir.path());
    for _ in 0..3 {
        assert_eq!(bench.send(&picture()).await.unwrap().cost_micros, Some(129));
    }
    let error = bench.send(&picture()).await.unwrap_err();
    assert_eq!(error.code(), "over_budget", "{error}");
    assert_eq!(bench.fake.asked(), 3);
}
