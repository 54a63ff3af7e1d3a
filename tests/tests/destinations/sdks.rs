//! The stand-ins, asked with their providers' own SDKs.

use holdfast_tests::vendors::{Fake, Vendor, sdks};

async fn prove(vendor: Vendor) {
    let Some(mut check) = sdks::check() else { return };
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start(vendor).await.unwrap();
    let credential = dir.path().join("credential");
    std::fs::write(&credential, vendor.credential(&fake.url)).unwrap();
    check.args([vendor.name(), &fake.url]).arg(&credential);
    let output = tokio::task::spawn_blocking(move || check.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}\n{:#?}", fake.refused());
    assert!(fake.asked() > 5, "{said}");
}

#[tokio::test]
async fn openai_speaks_to_the_stand_in_of_openai() {
    prove(Vendor::OpenAi).await;
}

#[tokio::test]
async fn openai_speaks_to_the_stand_in_of_azure() {
    prove(Vendor::AzureOpenAi).await;
}

#[tokio::test]
async fn mistralai_speaks_to_the_stand_in_of_mistral() {
    prove(Vendor::Mistral).await;
}

#[tokio::test]
async fn anthropic_speaks_to_the_stand_in_of_anthropic() {
    prove(Vendor::Anthropic).await;
}

#[tokio::test]
async fn google_genai_speaks_to_the_stand_in_of_gemini() {
    prove(Vendor::Gemini).await;
}

#[tokio::test]
async fn google_genai_speaks_to_the_stand_in_of_vertex() {
    prove(Vendor::Vertex).await;
}

#[tokio::test]
async fn boto3_speaks_to_the_stand_in_of_bedrock() {
    prove(Vendor::Bedrock).await;
}
