use std::time::Duration;

use holdfast_chat::Dialect;

use super::*;
use crate::balance::{Balance, Balancing};
use crate::destination::{Chat, Credential, Limits, Oip, Prices, Protocol};
use crate::network::{Metered, Plan};

fn parse(text: &str) -> Result<Config, Vec<String>> {
    with_environment(text, &[])
}

fn with_environment(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    match Config::parse("test.toml", text, environment) {
        Ok(config) => Ok(config),
        Err(ConfigError::Faults { faults, .. }) => {
            Err(faults.iter().map(ToString::to_string).collect())
        }
        Err(other) => Err(vec![other.to_string()]),
    }
}

#[test]
fn nothing_at_all_is_a_valid_configuration() {
    let config = parse("").unwrap();
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:8470");
    assert_eq!(config.policy, Policy::default());
    assert!(config.fleet.is_none() && config.destinations.is_empty());
}

#[test]
fn every_fault_is_reported_at_once_with_key_value_and_range() {
    let faults = parse(
        r#"
        colour = "blue"
        [api]
        listen = "everywhere"
        max_body_mib = 0
        listn = 1
        [policy]
        default_class = "secret"
        [policy.farthest_zone]
        restricted = "public"
        [[destination]]
        name = "site"
        url = "ftp://x"
        zone = "device"
        [[destination]]
        name = "site"
        url = "https://user:hunter2@cloud.example"
        zone = "public"
        protocol = "openai"
        tasks = ["Not A Task"]
        [[webhook]]
        name = "mes"
        url = "mes.example"
        zone = "nowhere"
        [fleet]
        broker = "localhost"
        zone = "device"
        [results]
        takers = ["A B"]
        "#,
    )
    .unwrap_err();
    let all = faults.join("\n");
    for expected in [
        "colour: is not known",
        "api.listen: is \"everywhere\"",
        "api.max_body_mib: is 0, must be 1..=64",
        "api.listn: is not known; known here: listen",
        "policy.default_class: is \"secret\", must be one of public",
        "policy.farthest_zone.restricted: is \"public\", must be \"device\" or nearer",
        "destination[0].url: must be a URL that begins with",
        "destination[0].zone: is \"device\"",
        "destination[1].name: is \"site\", must be unique",
        "destination[1].url: must be without user and password",
        "destination[1].model: is missing",
        "destination[1].tasks: has \"Not A Task\"",
        "fleet.broker: is \"localhost\"",
        "fleet.zone: is \"device\", must be one of site",
        "webhook[0].url: must be a URL that begins with",
        "webhook[0].zone: is \"nowhere\"",
        "webhook[0].secret_file: is missing",
        "results.takers: has \"A B\"",
    ] {
        assert!(all.contains(expected), "{expected} is not in\n{all}");
    }
    assert!(!all.contains("hunter2"), "a secret was echoed");
}

#[test]
fn what_would_make_a_destination_no_safer_is_a_fault() {
    let site = |url: &str, line: &str| {
        format!("[[destination]]\nname = \"site\"\nzone = \"site\"\nurl = \"{url}\"\n{line}\n")
    };
    let (plain, tls) = ("http://10.0.0.5:8470", "https://10.0.0.5:8470");
    for (url, line, want) in [
        (plain, "ca_file = \"root.pem\"", "ca_file: is given for a url without TLS"),
        (plain, "proxy = \"http://10.0.0.1:3128\"", "the proxy would read all that is sent"),
        (plain, "client_certificate = \"a.crt\"\nclient_key = \"a.key\"", "without TLS"),
        (tls, "proxy = \"http://line:hunter2@10.0.0.1\"", "proxy: must be \"environment\""),
        (tls, "proxy = \"ftp://10.0.0.1\"", "one of http://, socks5://, socks5h://"),
        (tls, "proxy_user_file = \"user\"", "proxy: is missing"),
        (tls, "proxy = \"environment\"\nproxy_user_file = \"user\"", "has its user in the URL"),
        (tls, "client_key = \"a.key\"", "client_certificate: is missing"),
        (tls, "client_certificate = \"a.crt\"", "client_key: is missing"),
        (tls, "pinned_keys = [\"sha256//AAAA\"]", "pinned_keys: has \"sha256//AAAA\""),
        (tls, "pinned_keys = []", "pinned_keys: is empty, which pins nothing"),
        (tls, "pinned_keys = [\"sha1//AAAA\"]", "must be sha256// and the SHA-256"),
    ] {
        let faults = with_environment(&site(url, line), &[]).unwrap_err().join("\n");
        assert!(faults.contains(want), "{line}: {faults}");
        assert!(!faults.contains("hunter2"), "a secret was echoed");
    }
    let pin = format!("sha256//{}=", "A".repeat(43));
    let lines = format!(
        "ca_file = \"root.pem\"\npinned_keys = [{pin:?}]\nproxy = \"socks5h://10.0.0.1:1080\"\n\
         proxy_user_file = \"user\"\nclient_certificate = \"a.crt\"\nclient_key = \"a.key\""
    );
    let config = with_environment(&site(tls, &lines), &[]).unwrap();
    let transport = &config.destinations[0].transport;
    assert_eq!((transport.pins.as_slice(), transport.identity.is_some()), (&[[0; 32]][..], true));
}

#[test]
fn the_environment_overrides_the_file() {
    let config = with_environment(
        "[api]\nlisten = \"127.0.0.1:1\"",
        &[
            ("HOLDFAST_API__LISTEN", "127.0.0.1:2"),
            ("HOLDFAST_API__MAX_BODY_MIB", "3"),
            ("HOLDFAST_MODELS__BUNDLES", "[\"a\", \"b\"]"),
            ("HOLDFAST_REFERENCE", "/elsewhere"),
            ("HOLDFAST_LOG", "debug"),
            ("HOLDFAST_FLEET_HTTP__X", "for the controller"),
        ],
    )
    .unwrap();
    assert_eq!(config.api.listen.port(), 2);
    assert_eq!(config.api.max_body_bytes, 3 << 20);
    assert_eq!(config.models.bundles.len(), 2);
    let faults = with_environment("", &[("HOLDFAST_API__LISTN", "x")]).unwrap_err();
    assert!(faults.join("").contains("api.listn: is not known"), "{faults:?}");
    let faults = with_environment("", &[("HOLDFAST_API_LISTEN", "127.0.0.1:2")]).unwrap_err();
    assert!(faults.join("").contains("HOLDFAST_API_LISTEN: overrides nothing"), "{faults:?}");
}

#[test]
fn a_table_where_a_value_belongs_is_a_fault_and_no_panic() {
    for text in [
        "api = 3",
        "[[api]]",
        "destination = 3",
        "[destination]",
        "[policy]\nfarthest_zone = 1",
        "[device]\nid = []",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn who_listens_to_the_network_asks_for_tokens_unless_it_is_said() {
    let local = parse("").unwrap().api;
    assert!(!local.require_token && !local.access_log);
    assert!(parse("[api]\nrequire_token = true").unwrap().api.require_token);
    for key in ["listen", "grpc_listen"] {
        let far = format!("[api]\n{key} = \"0.0.0.0:8470\"");
        let api = parse(&far).unwrap().api;
        assert!(api.require_token && api.access_log, "{key}");
        let why = parse(&format!("{far}\nrequire_token = false")).unwrap_err().join("");
        assert!(why.contains("allow_unauthenticated_network"), "{key}: {why}");
        let open = parse(&format!("{far}\nallow_unauthenticated_network = true")).unwrap();
        assert!(!open.api.require_token, "{key}");
    }
}

#[test]
fn the_shipped_file_shows_the_defaults() {
    let shipped = parse(include_str!("../../agent.toml")).unwrap();
    let defaults = parse("").unwrap();
    assert_eq!(format!("{shipped:?}"), format!("{defaults:?}"));
}

#[test]
fn the_limits_of_a_destination_are_read_and_held_against_each_other() {
    let with = |limits: &str| {
        parse(&format!(
            "[[destination]]\nname = \"cloud\"\nzone = \"public\"\nurl = \"http://c\"\n{limits}"
        ))
    };
    let limits = |text: &str| with(text).unwrap().destinations.remove(0).limits;
    assert_eq!(limits(""), Limits::default());
    let all = limits(
        "max_requests_per_min = 12\nmax_kib_per_s = 64\nprice_per_request_micros = 2500\n\
         budget_per_day_micros = 5000000",
    );
    let want = Limits {
        requests_per_min: Some(12),
        bytes_per_s: Some(64 * 1024),
        price_micros: 2500,
        prices: Prices::default(),
        budget_micros: Some(5_000_000),
    };
    assert_eq!(all, want);
    for (text, key) in [
        ("max_requests_per_min = 0", "max_requests_per_min"),
        ("max_requests_per_min = 0.2", "max_requests_per_min"),
        ("max_kib_per_s = -1", "max_kib_per_s"),
        ("budget_per_day_micros = 10", "budget_per_day_micros"),
        ("budget_per_day_micros = 10\nprice_per_request_micros = 11", "budget_per_day_micros"),
    ] {
        let faults = with(text).unwrap_err().join("\n");
        assert!(faults.starts_with(&format!("destination[0].{key}: is ")), "{text}: {faults}");
    }
}

#[test]
fn segments_are_no_larger_than_what_may_be_held() {
    let segment_mib = |text: &str| parse(text).map(|config| config.queue.segment_bytes >> 20);
    assert_eq!(segment_mib("[queue]\nmax_mib = 8"), Ok(2), "a small queue has small ones");
    assert_eq!(segment_mib("[queue]\nmax_mib = 1"), Ok(1));
    assert_eq!(segment_mib("[queue]\nmax_mib = 8\nsegment_mib = 8"), Ok(8));
    let faults = segment_mib("[queue]\nmax_mib = 8\nsegment_mib = 9").unwrap_err();
    assert!(faults.len() == 1 && faults[0].contains("queue.segment_mib"), "{faults:?}");
}

#[test]
fn versions_of_bundles_have_defaults_and_labels() {
    let models = parse(
        r#"
        [models]
        workers = 3
        idle_unload_s = 60
        [models.versions.voice-commands]
        default = "stable"
        labels = { stable = "1.0.0", next = "1.1.0-rc.1" }
        "#,
    );
    let models = models.unwrap().models;
    assert_eq!((models.workers, models.idle_unload), (Some(3), Some(Duration::from_secs(60))));
    let versions = &models.versions["voice-commands"];
    assert_eq!(versions.default.as_deref(), Some("stable"));
    assert_eq!(versions.labels["next"], "1.1.0-rc.1");
    assert_eq!(parse("").unwrap().models.idle_unload, None, "0 is never");
    for (text, want) in [
        ("workers = 0", "models.workers: is 0, must be 1..=64"),
        ("versions = 1", "models.versions: is 1, must be a table"),
        ("versions.a = 1", "models.versions.a: is 1, must be a table"),
        ("versions.a.labels.b = 1", "models.versions.a.labels.b: is 1, must be a text"),
        (
            "versions.a.newest = 1",
            "models.versions.a.newest: is not known; known here: default, labels",
        ),
    ] {
        assert_eq!(parse(&format!("[models]\n{text}")).unwrap_err(), [want]);
    }
}

#[test]
fn a_state_folder_without_a_name_is_refused() {
    for text in ["", "  "] {
        let faults = parse(&format!("[device]\nstate_dir = {text:?}")).unwrap_err();
        let want =
            format!("device.state_dir: is \"{text}\", must be a folder such as /var/lib/holdfast");
        assert_eq!(faults, [want]);
    }
    let faults = with_environment("", &[("HOLDFAST_DEVICE__STATE_DIR", "")]).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(parse("").unwrap().state_dir, PathBuf::from(STATE_DIR));
}

#[test]
fn each_protocol_has_what_it_needs_and_no_more() {
    let with = |keys: &str| {
        let text = format!("[[destination]]\nname = \"cloud\"\nzone = \"private\"\n{keys}");
        parse(&text).map(|mut config| config.destinations.remove(0))
    };
    let azure = "protocol = \"azure-openai\"\nurl = \"https://r.openai.azure.com\"\n\
                 deployment = \"gpt\"\napi_version = \"2024-10-21\"";
    let vertex = "protocol = \"vertex\"\nmodel = \"gemini\"\nproject = \"p\"";
    let region = || "eu-central-1".to_owned();
    for (keys, dialect, model, url) in [
        (
            azure.to_owned(),
            Dialect::AzureOpenAi { deployment: "gpt".into(), api_version: "2024-10-21".into() },
            "gpt",
            "https://r.openai.azure.com",
        ),
        (
            format!("{vertex}\nregion = \"europe-west4\""),
            Dialect::Vertex { project: "p".into(), region: "europe-west4".into() },
            "gemini",
            "https://europe-west4-aiplatform.googleapis.com",
        ),
        (
            format!("{vertex}\nregion = \"eu\""),
            Dialect::Vertex { project: "p".into(), region: "eu".into() },
            "gemini",
            "https://aiplatform.eu.rep.googleapis.com",
        ),
        (
            "protocol = \"bedrock\"\nmodel = \"m\"\nregion = \"cn-north-1\"".to_owned(),
            Dialect::Bedrock { region: "cn-north-1".into() },
            "m",
            "https://bedrock-runtime.cn-north-1.amazonaws.com.cn",
        ),
        (
            "protocol = \"bedrock\"\nmodel = \"m\"\nregion = \"eu-central-1\"".to_owned(),
            Dialect::Bedrock { region: region() },
            "m",
            "https://bedrock-runtime.eu-central-1.amazonaws.com",
        ),
        (
            "protocol = \"anthropic\"\nmodel = \"claude\"\nurl = \"http://proxy/\"".to_owned(),
            Dialect::Anthropic,
            "claude",
            "http://proxy",
        ),
    ] {
        let destination = with(&keys).unwrap();
        let want = Protocol::Chat(Chat::new(dialect, model));
        assert_eq!((destination.protocol, destination.url.as_str()), (want, url), "{keys}");
    }
    for (keys, want) in [
        ("protocol = \"mistral\"", "destination[0].model: is missing"),
        ("protocol = \"gemini\"\nmodel = \"\"", "destination[0].model: is missing"),
        ("protocol = \"bedrock\"\nmodel = \"m\"", "destination[0].region: is missing"),
        (
            "protocol = \"bedrock\"\nmodel = \"m\"\nregion = \"x.example/\"",
            "destination[0].region: is \"x.example/\", must be of a-z, 0-9 and -",
        ),
        (
            "protocol = \"vertex\"\nmodel = \"m\"\nproject = \"p\"\nregion = \"global\"",
            "destination[0].zone: is \"private\", and the region global is anywhere",
        ),
        (
            "protocol = \"bedrock\"\nmodel = \"global.m\"\nregion = \"eu-central-1\"",
            "destination[0].zone: is \"private\", and a global inference profile is anywhere",
        ),
        ("protocol = \"openai\"\nmodel = \"m\"", "destination[0].url: is missing"),
        (
            "protocol = \"mistral\"\nmodel = \"m\"\nregion = \"eu\"",
            "destination[0].region: is given, and the protocol mistral has none: remove it",
        ),
        (
            "url = \"http://c\"\nmodel = \"\"",
            "destination[0].model: is given, and the protocol holdfast has none: remove it",
        ),
        (
            "url = \"http://c\"\nversion = \"1\"",
            "destination[0].version: is given, and the protocol holdfast has none: remove it",
        ),
        (
            "url = \"http://c\"\nprotocol = \"oip\"\nmodel = \"a/b\"\ntasks = [\"a\"]",
            "destination[0].model: is \"a/b\", must be of letters",
        ),
        (
            "url = \"http://c\"\nprotocol = \"oip\"\nmodel = \"a\"\ntasks = [\"a\", \"b\"]",
            "destination[0].tasks: must name the one task that the model does",
        ),
        (
            "url = \"http://c\"\nprotocol = \"oip\"\nmax_output_tokens = 9",
            "destination[0].max_output_tokens: is given, and the protocol oip has none: remove it",
        ),
        ("protocol = \"palm\"\nurl = \"http://c\"", "destination[0].protocol: is \"palm\""),
        (
            "url = \"http://c\"\nprice_per_image_micros = 1",
            "destination[0].price_per_image_micros: is not known",
        ),
        (
            "url = \"http://c\"\napi_key_env = \"A\"\napi_key_credential = \"b\"",
            "destination[0].api_key_credential: is given beside api_key_env",
        ),
        (
            "url = \"http://c\"\napi_key_credential = \"../b\"",
            "destination[0].api_key_credential: is \"../b\", must be the name",
        ),
    ] {
        let faults = with(keys).unwrap_err();
        assert!(faults.len() == 1 && faults[0].starts_with(want), "{keys}: {faults:?}");
    }
    let helper = with("url = \"http://c\"\nmodel = \"m\"").unwrap();
    let talked_to = Protocol::HoldfastModel(Chat::new(Dialect::OpenAi, "m"));
    assert_eq!((&helper.protocol, helper.chat().is_some()), (&talked_to, true));
    let oip = "url = \"http://triton:8000\"\nprotocol = \"oip\"";
    let plain = Oip { model: None, version: None, is_binary: true };
    assert_eq!(with(oip).unwrap().protocol, Protocol::Oip(plain));
    let one =
        "model = \"Parts_v2.onnx\"\nversion = \"3\"\ntasks = [\"parts\"]\nbinary_tensors = false";
    let named = Oip {
        model: Some("Parts_v2.onnx".to_owned()),
        version: Some("3".to_owned()),
        is_binary: false,
    };
    let destination = with(&format!("{oip}\n{one}")).unwrap();
    assert_eq!(destination.protocol, Protocol::Oip(named));
    let paid = "protocol = \"gemini\"\nmodel = \"m\"\napi_key_credential = \"gemini\"\n\
                max_output_tokens = 100\nprice_per_million_tokens_in_micros = 300000\n\
                price_per_million_tokens_out_micros = 2500000\nprice_per_image_micros = 7\n\
                price_per_audio_second_micros = 1\nbudget_per_day_micros = ";
    let destination = with(&format!("{paid}10000")).unwrap();
    let prices = Prices {
        million_tokens_in: 300_000,
        million_tokens_out: 2_500_000,
        image: 7,
        audio_second: 1,
    };
    assert_eq!(destination.limits.prices, prices);
    assert_eq!(destination.credential, Some(Credential::Systemd("gemini".to_owned())));
    let faults = with(&format!("{paid}100")).unwrap_err();
    assert!(faults[0].contains("set apart for a request, which is 2768"), "{faults:?}");
}

#[test]
fn routes_have_names_of_their_own_and_destinations_that_have_a_model() {
    let with = |routes: &str| {
        parse(&format!(
            "[[destination]]\nname = \"site\"\nzone = \"site\"\nurl = \"http://s\"\n\
             [[destination]]\nname = \"near\"\nzone = \"site\"\nurl = \"http://n\"\n\
             protocol = \"openai\"\nmodel = \"small\"\n{routes}"
        ))
    };
    let route = |name: &str, destinations: &str| {
        format!("[[routes]]\nname = \"{name}\"\ndestinations = {destinations}\n")
    };
    let config = with(&route("any", "[\"near\"]")).unwrap();
    assert_eq!(config.routes[0].destinations, ["near"]);
    for (routes, want) in [
        (route("near", "[\"near\"]"), "routes[0].name: is \"near\""),
        (route("", "[\"near\"]"), "routes[0].name: is \"\""),
        (route("any", "[]"), "routes[0].destinations: must name"),
        (route("any", "[\"far\"]"), "has \"far\", which is no destination"),
        (route("any", "[\"site\"]"), "has \"site\", which is asked tasks"),
        (route("any", "[\"near\", \"near\"]"), "has \"near\", twice"),
        (route("any", "[\"near\"]").repeat(2), "routes[1].name: is \"any\""),
    ] {
        let faults = with(&routes).unwrap_err().join("\n");
        assert!(faults.contains(want), "{routes}: {faults}");
    }
}

#[test]
fn who_comes_first_is_read_with_weights_for_those_who_are_named() {
    let with = |rest: &str| {
        let destination = |name: &str| {
            format!(
                "[[destination]]\nname = \"{name}\"\nzone = \"site\"\nurl = \"http://n\"\n\
                 protocol = \"openai\"\nmodel = \"small\"\n"
            )
        };
        parse(&(destination("near") + &destination("far") + rest))
    };
    let route = |more: &str| {
        format!("[[routes]]\nname = \"any\"\ndestinations = [\"near\", \"far\"]\n{more}\n")
    };
    let config = with(&route("balance = \"weight\"\nweights = { far = 0 }")).unwrap();
    let balancing = &config.routes[0].balancing;
    assert_eq!(balancing.balance, Balance::Weight);
    assert_eq!((balancing.weight("near"), balancing.weight("far")), (1, 0));
    assert_eq!(config.balancing, Balancing::default());
    let config = with("[requests]\nbalance = \"latency\"\nhedge_after_ms = 40").unwrap();
    assert_eq!(config.balancing.hedge_after, Some(Duration::from_millis(40)));
    assert_eq!(config.balancing.balance, Balance::Latency);
    for (rest, want) in [
        (
            route("balance = \"best\""),
            "routes[0].balance: is \"best\", must be one of order, weight",
        ),
        (route("weights = { near = 1 }"), "routes[0].weights: is given, and balance is not"),
        (
            route("balance = \"weight\"\nweights = { site = 1 }"),
            "routes[0].weights: has \"site\", which is none of the destinations",
        ),
        (
            route("balance = \"weight\"\nweights = { near = 1001 }"),
            "routes[0].weights.near: is 1001, must be 0..=1000",
        ),
        (
            route("balance = \"weight\"\nweights = { near = 0, far = 0 }"),
            "routes[0].weights: is 0 for every destination",
        ),
        (route("hedge_after_ms = 0"), "routes[0].hedge_after_ms: is 0, must be 1..=600000"),
        ("[requests]\nweights = { near = 2 }".to_owned(), "requests.weights: is given"),
    ] {
        let faults = with(&rest).unwrap_err().join("\n");
        assert!(faults.contains(want), "{rest}: {faults}");
    }
}

#[test]
fn metered_links_and_their_budgets_are_read_and_held_against_each_other() {
    let mib = |count: u64| Some(count << 20);
    let read = |text: &str| parse(text).map(|config| config.network);
    assert_eq!(read("").unwrap(), NetworkConfig::default());
    let all = read(
        "[network]\nmetered = \"interfaces\"\nmetered_interfaces = [\"wwan*\"]\n\
         budget_per_day_mib = 20\nbudget_per_month_mib = 500\nmonth_begins_on_day = 15\n\
         reserve_percent = 5\nunmetered = [\"site\", \"controller\"]\n\
         [[destination]]\nname = \"site\"\nzone = \"site\"\nurl = \"http://s\"\n",
    );
    let plan =
        Plan { per_day: mib(20), per_month: mib(500), month_begins_on: 15, reserve_percent: 5 };
    let want = NetworkConfig {
        metered: Metered::Interfaces(vec!["wwan*".to_owned()]),
        plan,
        unmetered: vec!["site".to_owned(), "controller".to_owned()],
    };
    assert_eq!(all.unwrap(), want);
    for (text, fault) in [
        ("metered = \"wwan0\"", "network.metered"),
        ("metered = \"interfaces\"", "network.metered_interfaces"),
        ("metered = \"interfaces\"\nmetered_interfaces = []", "network.metered_interfaces"),
        ("metered = \"always\"\nmetered_interfaces = [\"ppp0\"]", "network.metered_interfaces"),
        ("budget_per_day_mib = 20", "network.metered"),
        ("metered = \"always\"\nbudget_per_day_mib = 0", "network.budget_per_day_mib"),
        ("month_begins_on_day = 29", "network.month_begins_on_day"),
        ("unmetered = [\"nobody\"]", "network.unmetered"),
        ("meter = true", "network.meter"),
    ] {
        let faults = read(&format!("[network]\n{text}")).unwrap_err();
        assert!(
            faults.iter().any(|each| each.starts_with(&format!("{fault}:"))),
            "{text}: {faults:?}"
        );
    }
}

#[test]
fn a_rule_of_the_cache_names_what_can_be_asked_and_may_leave() {
    let destination = "[[destination]]\nname = \"near\"\nzone = \"site\"\nprotocol = \"openai\"\n\
                       model = \"small\"\nurl = \"http://b\"\n[[routes]]\nname = \"any\"\n\
                       destinations = [\"near\"]\n";
    let parse = |cache: &str| parse(&format!("{destination}{cache}"));
    let none = parse("").unwrap().cache;
    assert_eq!((none.max_bytes, none.rules.len(), none.key), (64 << 20, 0, None));
    let rule =
        "[[cache.rules]]\nmodels = [\"any\", \"near\", \"small\"]\nclasses = [\"internal\"]\n";
    let cache = parse(&format!("{rule}ttl_s = 0\n[cache]\nmax_mib = 1\nkey_env = \"KEY\"\n"));
    let cache = cache.unwrap().cache;
    assert_eq!((cache.max_bytes, cache.key), (1 << 20, Some(Credential::Env("KEY".to_owned()))));
    assert_eq!((cache.rules[0].models.len(), cache.rules[0].ttl), (3, Duration::ZERO));
    assert_eq!(parse(rule).unwrap().cache.rules[0].ttl, Duration::from_secs(3600));
    let all = "[[cache.rules]]\nmodels = [\"*\"]\nclasses = [\"public\", \"confidential\"]\n";
    assert_eq!(parse(all).unwrap().cache.rules[0].classes.len(), 2);
    for (text, want) in [
        ("[cache]\nmax_mib = 0", "cache.max_mib: is 0, must be 1..=65536"),
        ("[cache]\nttl_s = 9", "cache.ttl_s: is not known; known here: max_mib, key_file"),
        ("[cache]\nkey_env = \"A\"\nkey_file = \"b\"", "cache.key_env: is given beside key_file"),
        ("[[cache.rules]]\nclasses = [\"public\"]", "cache.rules[0].models: must have one name"),
        ("[[cache.rules]]\nmodels = [\"*\"]", "cache.rules[0].classes: must have one class"),
        (
            "[[cache.rules]]\nmodels = [\"far\"]\nclasses = [\"public\"]",
            "cache.rules[0].models: has \"far\", which is no route, destination or model",
        ),
        (
            "[[cache.rules]]\nmodels = [\"*\"]\nclasses = [\"restricted\"]",
            "cache.rules[0].classes: has \"restricted\", which never leaves the device",
        ),
        (
            "[[cache.rules]]\nmodels = [\"*\"]\nclasses = [\"secret\"]",
            "cache.rules[0].classes: has \"secret\", which is none of public",
        ),
        (
            "[[cache.rules]]\nmodels = [\"*\"]\nclasses = [\"public\"]\nttl_s = -1",
            "cache.rules[0].ttl_s: is -1, must be 0..=31536000",
        ),
        (
            "[[cache.rules]]\nmodels = [\"*\"]\nclasses = [\"public\"]\nttl = 9",
            "cache.rules[0].ttl: is not known; known here: models, classes, ttl_s",
        ),
    ] {
        let faults = parse(text).unwrap_err().join("\n");
        assert!(faults.contains(want), "{text}: {faults}");
    }
}
