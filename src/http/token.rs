//! New tokens, at the wish of whoever may use the socket. A token cannot be had over the API, nor replaced with a
//! token: who has a stolen one could lock its owner out.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::access::Caller;
use super::dto;
use super::error::ApiError;
use super::extract::Params;
use super::serve::Origin;
use crate::control::Control;
use crate::token::Role;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    /// Whose token is replaced.
    #[serde(default = "operator")]
    role: Role,
}

fn operator() -> Role {
    Role::Operator
}

pub(super) async fn rotate(
    State(control): State<Control>,
    Params(whose): Params<Whose>,
    caller: Caller,
    origin: Origin,
) -> Result<Json<dto::TokenRotated>, ApiError> {
    if caller != Caller::Local {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "socket_only",
            "Tokens are rotated over the socket",
            "run `supervisorctl token rotate` on the host of the supervisor",
        ));
    }
    let role = whose.role.as_str();
    match control.rotate_token(whose.role, origin.0).await? {
        Ok(file) => {
            let message =
                format!("the {role} token is a new one, in {file}; the old one is refused from now on");
            Ok(Json(dto::TokenRotated { role: role.into(), file, message }))
        }
        Err(why) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "not_rotated",
            "The token is the old one",
            format!("{why}; the old {role} token stays in force"),
        )),
    }
}
