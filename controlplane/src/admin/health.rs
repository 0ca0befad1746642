//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use super::Admin;

pub(crate) fn health_router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(super::metrics::serve))
        .with_state(admin)
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    let left = admin.readiness.left();
    if left.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let lines = left.iter().map(|task| format!("not ready: {task}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines)
}
