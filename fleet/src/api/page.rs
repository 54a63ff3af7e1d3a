//! The page: three files inside the program, and nothing from elsewhere.
//!
//! **Invariant:** the page's policy lets it load and ask only what this server serves.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const INDEX: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/fleet.css");
const SCRIPT: &str = include_str!("../page/fleet.js");

pub(super) async fn index() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, INDEX).into_response()
}

pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let (kind, content) = match name.as_str() {
        "fleet.css" => ("text/css; charset=utf-8", STYLE),
        "fleet.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => {
            return Problem::new(StatusCode::NOT_FOUND, "unknown_path", "no such asset")
                .into_response();
        }
    };
    ([(header::CONTENT_TYPE, kind)], content).into_response()
}
