//! Counts of tokens where no provider counts: about as many as there may be.

use base::{Call, ResponseHead, StatusCode};
use transport::{Body, Response};

use super::understand::Asked;

/// Says of a count that it is about right.
const ESTIMATED: &str = "weir-estimated";

pub fn estimated(asked: &Asked, call: &Call) -> Response {
    let tokens = call.model.as_deref().map_or(0, |it| it.prompt);
    let mut head = ResponseHead::new(StatusCode::OK);
    head.headers.append("content-type", "application/json");
    head.headers.append(ESTIMATED, "tokens");
    Response::new(head, Body::from(llm::count::write(asked.target.dialect, tokens)))
}
