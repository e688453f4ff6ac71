//! Who asks: what a page needs to know before it offers a button.

use axum::Json;
use axum::extract::State;

use super::access::Caller;
use super::dto;
use crate::control::Control;
use crate::token::Role;

pub(super) async fn session(State(control): State<Control>, caller: Caller) -> Json<dto::Session> {
    let word = match caller {
        Caller::Local => "local",
        Caller::Token(role) => role.as_str(),
        Caller::Anonymous => "anonymous",
    };
    let local = caller == Caller::Local;
    let token_file = local.then(|| Role::Operator.file(&control.about().state).display().to_string());
    Json(dto::Session {
        caller: word.into(),
        scope: control.about().scope.into(),
        may_change: matches!(caller, Caller::Local | Caller::Token(Role::Operator)),
        may_see_inside: caller.may_see_inside(),
        token_file,
    })
}
