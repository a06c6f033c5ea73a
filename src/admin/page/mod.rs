//! The page: HTML that the server writes whole, so that it is read without scripts; the scripts keep it up to date and
//! carry out the actions of its buttons. Nothing of it comes from elsewhere.

mod escape;
mod explain;
mod html;
mod limits;
mod now;
mod plot;
mod refused;
mod rules;
mod top;

use std::fmt::{self, Write as _};

use serde_json::Value;

use super::{
    explain::Question,
    history::History,
    limits::TenantLimits,
    snapshot::{Snapshot, span},
};
use crate::base::units;
pub use escape::{Escaped, escaped};

/// Dialogs of the page, which the scripts open.
const DIALOGS: &str = include_str!("assets/dialogs.html");

/// One of the views of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Now,
    Top,
    Refused,
    Explain,
    Limits,
    Rules,
}

impl View {
    /// In the order of the page's navigation.
    pub(super) const ALL: [Self; 6] =
        [Self::Now, Self::Top, Self::Refused, Self::Explain, Self::Limits, Self::Rules];
    /// Views that are sent anew each second.
    pub(super) const LIVE: [Self; 3] = [Self::Now, Self::Refused, Self::Rules];

    /// Its path: `/` and its name in lower case, `/` alone for [`Self::Now`].
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Now => "/",
            Self::Top => "/top",
            Self::Refused => "/refused",
            Self::Explain => "/explain",
            Self::Limits => "/limits",
            Self::Rules => "/rules",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Now => "Now",
            Self::Top => "Top",
            Self::Refused => "Refused",
            Self::Explain => "Explain",
            Self::Limits => "Limits",
            Self::Rules => "Rules",
        }
    }
}

/// The state that views are made of.
#[derive(Debug)]
pub(super) struct State<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) history: &'a History,
    pub(super) rules: &'a [Value],
}

impl State<'_> {
    /// The part of a view that changes all the time.
    pub(super) fn fragment(&self, view: View) -> String {
        let mut out = String::with_capacity(32 << 10);
        // Writing to a string does not fail.
        let _ = facts(&mut out, self.snapshot);
        let _ = match view {
            View::Now => now::write(&mut out, self.snapshot, self.history),
            View::Refused => refused::write(&mut out, self.snapshot),
            View::Rules => rules::write(&mut out, self.rules),
            // They answer a question, and have no state of their own.
            View::Top | View::Explain | View::Limits => Ok(()),
        };
        out
    }
}

/// *Top*: an answer of `GET /api/v1/admin/top`; `None` where no queries are recorded.
pub(super) fn top(top: Option<&Value>) -> String {
    written(|out| top::write(out, top))
}

/// *Explain*: a question, and the answer to it if it was asked.
pub(super) fn explain(question: &Question, answer: Option<&Result<Value, String>>) -> String {
    written(|out| explain::write(out, question, answer))
}

/// *Limits*: those of a tenant, if one is named.
pub(super) fn limits(limits: Option<&TenantLimits>, now_ms: i64) -> String {
    written(|out| limits::write(out, limits, now_ms))
}

fn written(write: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut out = String::with_capacity(8 << 10);
    // Writing to a string does not fail.
    let _ = write(&mut out);
    out
}

/// The title of the window, which stands on its tab.
fn title(snapshot: &Snapshot) -> String {
    match snapshot.findings().len() {
        0 => "Weir: all is well".to_owned(),
        1 => "Weir: 1 finding".to_owned(),
        n => format!("Weir: {n} findings"),
    }
}

fn facts(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let since = |then: i64| span(snapshot.now_ms.saturating_sub(then).max(0) as u64);
    write!(
        out,
        "<p class=\"facts\" data-title=\"{}\"><span>{}</span><span>version {}, up {}</span>\
         <span>configuration loaded {} ago</span><span>{} client connections</span></p>",
        title(snapshot),
        clock(snapshot.now_ms),
        escaped(snapshot.version),
        since(snapshot.started_ms),
        since(snapshot.config.loaded_ms),
        units::count(snapshot.connections.used)
    )
}

/// The document around a view: `main` is its markup, `live` the name under which its changes are sent, `refresh` the
/// seconds until a browser without scripts loads it again.
pub(super) fn document(view: View, main: &str, live: bool, refresh: Option<u32>) -> String {
    let mut out = String::with_capacity(main.len() + DIALOGS.len() + (4 << 10));
    // Writing to a string does not fail.
    let _ = write_document(&mut out, view, main, live, refresh);
    out
}

fn write_document(out: &mut String, view: View, main: &str, live: bool, refresh: Option<u32>) -> fmt::Result {
    out.write_str(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">",
    )?;
    write!(out, "<title>Weir: {}</title>", view.title())?;
    out.write_str(
        "<link rel=\"icon\" href=\"/assets/icon.svg\" type=\"image/svg+xml\">\
         <link rel=\"stylesheet\" href=\"/assets/page.css\">\
         <script type=\"module\" src=\"/assets/page.js\"></script>",
    )?;
    if let Some(seconds) = refresh {
        write!(out, "<noscript><meta http-equiv=\"refresh\" content=\"{seconds}\"></noscript>")?;
    }
    out.write_str(
        "</head>\n<body><a class=\"skip\" href=\"#main\">Skip to content</a><header><strong>Weir</strong>\
         <nav aria-label=\"Views\"><ul>",
    )?;
    for one in View::ALL {
        let current = if one == view { " aria-current=\"page\"" } else { "" };
        write!(out, "<li><a href=\"{}\"{current}>{}</a></li>", one.path(), one.title())?;
    }
    out.write_str(
        "</ul></nav><div class=\"controls\"><span id=\"live\" role=\"status\"></span>\
         <button type=\"button\" id=\"pause\" aria-pressed=\"false\">Pause</button>\
         <button type=\"button\" id=\"sign-in\">Token</button></div></header>",
    )?;
    let live = if live { format!(" data-live=\"{}\"", view.path()) } else { String::new() };
    write!(
        out,
        "<main id=\"main\" tabindex=\"-1\"><h1>{}</h1><div id=\"view\"{live}>{main}</div></main>",
        view.title()
    )?;
    writeln!(
        out,
        "<footer><a href=\"/status.json\">JSON</a> <a href=\"/metrics\">metrics</a> <a href=\"/endpoints\">endpoints</a></footer>\
         {DIALOGS}</body></html>"
    )
}

/// In place of a view that needs a token: it shows the dialog that asks for one, and then the view.
pub(super) fn sign_in() -> String {
    document(
        View::Now,
        "<p class=\"none\" data-sign-in>This page needs a token of <code>server.admin_auth</code>.</p>",
        false,
        None,
    )
}

/// A moment as people write it, in UTC.
fn clock(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}
