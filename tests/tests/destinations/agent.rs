//! A real agent, configured for one provider after the other.

use std::path::Path;

use holdfast_tests::client::Client;
use holdfast_tests::reference;
use holdfast_tests::samples::of_bundle;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use holdfast_tests::vendors::{API_VERSION, Fake, KEY, MODEL, PROJECT, REGION, Vendor};
use serde_json::Value;

fn section(vendor: Vendor, url: &str, key: &Path) -> String {
    let own = match vendor {
        Vendor::AzureOpenAi => {
            format!("deployment = {MODEL:?}\napi_version = {API_VERSION:?}")
        }
        Vendor::Vertex => {
            format!("model = {MODEL:?}\nproject = {PROJECT:?}\nregion = {REGION:?}")
        }
        Vendor::Bedrock => format!("model = {MODEL:?}\nregion = {REGION:?}"),
        _ => format!("model = {MODEL:?}"),
    };
    format!(
        "\n[[destination]]\nname = \"cloud\"\nzone = \"private\"\nprotocol = {:?}\nurl = {url:?}\n\
         api_key_file = {:?}\nprice_per_image_micros = 700\nbudget_per_day_micros = 700\n{own}\n",
        vendor.name(),
        key.display().to_string()
    )
}

#[tokio::test]
async fn an_agent_asks_every_provider_and_says_what_it_cost() {
    let samples = of_bundle(&reference::bundles().join("part-inspection")).unwrap();
    let picture = samples.first().unwrap().read().unwrap();
    for vendor in Vendor::ALL {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::start(vendor).await.unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, vendor.credential(&fake.url)).unwrap();
        let bundles = bundles(&["part-inspection"]);
        let agent = Agent { name: DEVICE, bundles, site: None, broker: None };
        let toml = agent.toml(dir.path()) + &section(vendor, &fake.url, &key);
        let program = Path::new(env!("CARGO_BIN_EXE_holdfast-demo"));
        let mut device = start_agent_with(program, dir.path(), DEVICE, &toml).await.unwrap();
        let client = Client::new(device.address("api").unwrap()).unwrap();
        // What the class keeps here is answered here, however much money there is.
        let terms = [("holdfast-class", "confidential"), ("holdfast-escalate", "always")];
        let (_, text) = client.post("part-inspection", picture.clone(), &terms).await.unwrap();
        assert!(text.contains("class_forbids"), "{vendor:?}: {text}");
        assert_eq!(fake.asked(), 0, "{vendor:?}");
        let terms = [("holdfast-class", "internal"), ("holdfast-escalate", "always")];
        let (status, text) = client.post("part-inspection", picture.clone(), &terms).await.unwrap();
        let said: Value = serde_json::from_str(&text).unwrap();
        let answer = &said["answer"];
        assert_eq!(
            (status.as_u16(), &said["state"]),
            (200, &"answered".into()),
            "{vendor:?}: {text}"
        );
        assert_eq!((&answer["place"], &answer["zone"]), (&"cloud".into(), &"private".into()));
        assert_eq!(answer["cost_micros"], 700, "{vendor:?}: {text}");
        assert_eq!(fake.files(), [picture.as_slice()], "{vendor:?}: {:?}", fake.refused());
        // So is what the day's money keeps here.
        let (_, text) = client.post("part-inspection", picture.clone(), &terms).await.unwrap();
        assert!(text.contains("send_failed") || text.contains("budget"), "{vendor:?}: {text}");
        assert_eq!(fake.asked(), 1, "{vendor:?}");
        device.kill().unwrap();
        assert!(!device.log_tail().contains(KEY), "{vendor:?}: the key is in the log");
    }
}
