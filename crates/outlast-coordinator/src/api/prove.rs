//! The coordinator's proof that it knows a key, for those who are about to send it.

use crate::app::App;
use crate::extract::Params;
use crate::problem::Refusal;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use outlast_wire::proof::{Challenge, Proof};

/// Answers a challenge: shows that this is the coordinator that an API key is of, so that nobody else
/// is sent the key where no TLS says who answers. Needs no key.
#[utoipa::path(get, path = "/api/v1/prove", tag = "watch", params(Challenge),
    responses((status = 200, body = Proof), (status = 403, description = "there is no such key")))]
pub(crate) async fn prove(
    State(app): State<App>,
    Params(challenge): Params<Challenge>,
) -> Result<Json<Proof>, Refusal> {
    if !challenge.is_valid() {
        return Err(Refusal::bad("nonce: must be 32 to 128 hexadecimal digits"));
    }
    if !app.auth.needed() {
        return Ok(Json(Proof { proof: String::new() }));
    }
    match app.auth.hash_of(&challenge.key)? {
        Some(hash) => Ok(Json(challenge.answer(&hash))),
        None => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "unknown-key",
            "there is no such API key here",
            "it was revoked, or is another coordinator's",
        )),
    }
}
