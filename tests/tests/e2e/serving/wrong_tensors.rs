//! Tensors over HTTP that do not fit the model, or the memory that all requests may take.

use holdfast_tests::client::Client;
use holdfast_tests::site::start_agent_with;

use super::super::program;
use super::made::{Made, ROW};

#[tokio::test]
async fn what_is_wrong_with_an_input_is_said_before_what_is_wrong_with_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let bundles = dir.path().join("bundles");
    Made::of("table", "1.0.0", 0.25).write(&bundles);
    let text = format!(
        "[device]\nstate_dir = {:?}\n\
         [api]\nlisten = \"127.0.0.1:0\"\nmax_body_mib = 1\nmax_body_memory_mib = 1\n\
         [models]\nbundles = [{bundles:?}]\nonnxruntime = \"off\"\ntune = false\n",
        dir.path().join("state")
    );
    let node = start_agent_with(program(), dir.path(), "agent", &text).await.unwrap();
    let client = Client::new(node.address("api").unwrap()).unwrap();
    let infer = async |datatype: &str, shape: &str, count: usize| {
        let data = vec!["1"; count].join(",");
        let body = format!(
            "{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"{datatype}\",\"shape\":{shape},\"data\":[{data}]}}]}}"
        );
        client.post_to("/v2/models/table/infer", body.into_bytes(), &[]).await.unwrap()
    };
    let (status, said) = infer("FP32", "[1,1,4,4]", ROW).await;
    assert_eq!(status, 200, "{said}");
    for (datatype, shape, count, status, want) in [
        ("FP32", "[1,1,4,5]", ROW, 400, "has shape [1, 1, 4, 5], must be FP32 [-1, 1, 4, 4]"),
        ("INT64", "[1,1,4,4]", ROW + 1, 400, "has datatype INT64, must be FP32"),
        ("FP32", "[1,1,4,4]", ROW + 1, 400, "data is longer than its shape, 16 elements"),
        ("FP32", "[1,1,4,4]", ROW - 1, 400, "data has 15 elements, its shape has 16"),
        // 640 KB of text would be 1.3 MB of numbers.
        (
            "FP32",
            "[20000,1,4,4]",
            20_000 * ROW,
            413,
            "take 1280000 bytes, api.max_body_memory_mib allows 1048576",
        ),
    ] {
        let (got, said) = infer(datatype, shape, count).await;
        assert!(got == status && said.contains(want), "{want}: {got} {said}");
    }
}
