//! The page over HTTP: its views, their changes, and the files that they need.

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    explain::{self, Question},
    limits::{self, TenantLimits},
    page::{self, View, document, sign_in},
    reply::{Failed, RequestParams},
    snapshot::Snapshot,
    state::Admin,
    top,
};
use crate::{
    base::ErrorKind,
    http::{TokenGuard, Tokens},
    top::By,
};

/// Seconds until a browser without scripts loads the page anew, unless it is asked otherwise.
const REFRESH: u32 = 5;
/// The longest that can be asked for.
const REFRESH_MAX: u32 = 3_600;

/// The kinds of key that *Top* ranks: dashboards unless a request names another.
const BY: [By; 6] = [By::Dashboard, By::Fingerprint, By::User, By::Rule, By::Tenant, By::Client];

/// The files of the page.
const ASSETS: &[(&str, &str, &str)] = &[
    ("page.css", "text/css", include_str!("page/assets/page.css")),
    ("page.js", "text/javascript", include_str!("page/assets/page.js")),
    ("act.js", "text/javascript", include_str!("page/assets/act.js")),
    ("ask.js", "text/javascript", include_str!("page/assets/ask.js")),
    ("live.js", "text/javascript", include_str!("page/assets/live.js")),
    ("morph.js", "text/javascript", include_str!("page/assets/morph.js")),
    ("icon.svg", "image/svg+xml", include_str!("page/assets/icon.svg")),
];

/// The page takes its scripts, its style and its data from here alone, even where the text of a query names another place.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// The views and their files. A view needs a token where the configuration has tokens; a file says nothing about anybody.
pub(super) fn router<T>(tokens: TokenGuard<T>) -> Router<Admin>
where
    T: Fn() -> Tokens + Clone + Send + Sync + 'static,
{
    let live = |pages: Router<Admin>, view: View| {
        let show = move |State(admin), asked: RequestParams| async move { live_view(view, &admin, asked) };
        pages.route(view.path(), get(show))
    };
    View::LIVE
        .into_iter()
        .fold(Router::new(), live)
        // Its name when there was no other view.
        .route("/status", get(|State(admin), asked| async move { live_view(View::Now, &admin, asked) }))
        .route(View::Top.path(), get(top_view))
        .route(View::Explain.path(), get(explain_view))
        .route(View::Limits.path(), get(limits_view))
        .route("/events", get(events))
        // Beside the page, since it asks the database, at any caller's request.
        .route("/api/v1/admin/explain", get(explain::explain))
        .layer(tokens)
        .route("/assets/{name}", get(asset))
        .layer(middleware::from_fn(guard))
}

fn html(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
}

/// One of the views that change all the time.
fn live_view(view: View, admin: &Admin, mut asked: RequestParams) -> Result<Response, Failed> {
    let refresh = match asked.take("refresh").as_deref().map(str::parse) {
        None | Some(Err(_)) => Some(REFRESH),
        Some(Ok(0)) => None,
        Some(Ok(seconds)) => Some(u32::min(seconds, REFRESH_MAX)),
    };
    asked.nothing_else()?;
    let fragment = admin.live.fragment(view, &Snapshot::take(&admin.proxy));
    Ok(html(document(view, &fragment, true, refresh)))
}

async fn top_view(State(admin): State<Admin>, mut asked: RequestParams) -> Result<Response, Failed> {
    let ranking = top::ranking(&admin.proxy, &mut asked, &BY)?;
    // There are only numbers and texts.
    let ranking = ranking.map(|ranking| serde_json::to_value(ranking).unwrap_or_default());
    Ok(html(document(View::Top, &page::top(ranking.as_ref()), false, None)))
}

async fn explain_view(State(admin): State<Admin>, mut asked: RequestParams) -> Result<Response, Failed> {
    let question = Question::take(&mut asked);
    asked.nothing_else()?;
    let answer = if question.query.is_empty() { None } else { Some(question.answer(&admin.proxy).await) };
    Ok(html(document(View::Explain, &page::explain(&question, answer.as_ref()), false, None)))
}

async fn limits_view(State(admin): State<Admin>, asked: RequestParams) -> Result<Response, Failed> {
    let (tenant, suggests) = limits::parameters(asked)?;
    let suggester = suggests.then_some(&admin.suggester);
    let limits = match tenant {
        Some(tenant) => Some(TenantLimits::of(&admin.proxy, tenant, suggester).await?),
        None => None,
    };
    Ok(html(document(View::Limits, &page::limits(limits.as_ref(), admin.proxy.now_ms()), false, None)))
}

/// The changes of a view, as server-sent events: each is its markup.
async fn events(State(admin): State<Admin>, mut asked: RequestParams) -> Result<Response, Failed> {
    let path = asked.take("view");
    asked.nothing_else()?;
    let view = View::LIVE.into_iter().find(|view| Some(view.path()) == path.as_deref());
    let view = view
        .ok_or_else(|| Failed::bad("`view` is the path of a view that changes all the time, such as `/`"))?;
    let events = admin.live.watch(view);
    let events =
        events.ok_or_else(|| Failed(ErrorKind::QueueFull, "too many people watch already".to_owned()))?;
    Ok(events.into_response())
}

/// A file of the page; it says nothing about anybody, and needs no token.
async fn asset(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, text)) => ([(header::CONTENT_TYPE, *kind)], *text).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Guards each answer of the page: requests of other sites are refused, browsers store nothing, and a request without a token
/// gets the form that asks for one.
async fn guard(request: Request, next: Next) -> Response {
    if is_part_of_another_site(request.headers()) {
        return Failed(ErrorKind::Forbidden, "a page of another site may not use this".to_owned())
            .into_response();
    }
    let is_view = *request.method() == Method::GET
        && request
            .headers()
            .get(header::ACCEPT)
            .is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"));
    let mut response = next.run(request).await;
    if is_view && response.status() == StatusCode::UNAUTHORIZED {
        response = (StatusCode::UNAUTHORIZED, html(sign_in())).into_response();
    }
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Whether a browser asks for something that a page of another site embeds; a link on it may be followed.
fn is_part_of_another_site(headers: &HeaderMap) -> bool {
    let is = |name, values: &[&str]| {
        headers.get(name).is_some_and(|value| values.iter().any(|known| value == *known))
    };
    is("sec-fetch-site", &["cross-site", "same-site"]) && !is("sec-fetch-dest", &["document"])
}
