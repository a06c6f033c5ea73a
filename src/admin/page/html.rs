//! The elements that the views are made of. Every cell carries its heading, since on a narrow screen a row becomes a list;
//! roles are written out, since a table that is shown as a list is no table to a screen reader otherwise.

use std::fmt::{self, Display, Write as _};

use form_urlencoded::Serializer;

use super::escape::escaped;
use crate::{
    admin::snapshot::{Number, Share},
    proxy::Origin,
};

/// A column's heading, and the class of its cells.
pub(super) type Column = (&'static str, &'static str);

/// A table with a name for those who do not see it.
pub(super) fn table(
    out: &mut String,
    name: &str,
    columns: &[Column],
    rows: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    write!(
        out,
        "<table role=\"table\" aria-label=\"{}\"><thead role=\"rowgroup\"><tr role=\"row\">",
        escaped(name)
    )?;
    for (heading, class) in columns {
        write!(out, "<th role=\"columnheader\" scope=\"col\" class=\"{class}\">{heading}</th>")?;
    }
    out.write_str("</tr></thead><tbody role=\"rowgroup\">")?;
    rows(out)?;
    out.write_str("</tbody></table>")
}

/// A row; rows with a key keep their element, and with it the focus, while others come and go.
pub(super) fn row(
    out: &mut String,
    key: impl Display,
    cells: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    write!(out, "<tr role=\"row\" data-key=\"{}\">", escaped(&key.to_string()))?;
    cells(out)?;
    out.write_str("</tr>")
}

/// One cell; `html` is markup.
pub(super) fn cell(out: &mut String, (heading, class): Column, html: impl Display) -> fmt::Result {
    write!(out, "<td role=\"cell\" class=\"{class}\" data-h=\"{heading}\"><div>{html}</div></td>")
}

/// Nothing to show.
pub(super) fn none(out: &mut String, text: &str) -> fmt::Result {
    write!(out, "<p class=\"none\">{text}</p>")
}

/// A gauge that is full to a share, with its numbers beside it.
pub(super) fn gauge(name: &str, share: Share, show: impl Fn(u64) -> String) -> String {
    let used = show(share.used);
    match share.of.zip(share.percent()) {
        Some((of, percent)) => filled(name, percent, &format!("{used} of {}", show(of))),
        None => format!("<span class=\"of\">{used} of unlimited</span>"),
    }
}

/// A gauge, filled to a percentage; `html` stands beside it.
pub(super) fn filled(name: &str, percent: u64, html: &str) -> String {
    let value = percent.min(100);
    format!(
        "<meter min=\"0\" max=\"100\" low=\"70\" high=\"90\" optimum=\"0\" value=\"{value}\" aria-label=\"{}\">{value} %</meter>\
         <span class=\"of\">{html}</span>",
        escaped(name)
    )
}

/// A number and how it is known.
pub(super) fn number(number: Number, show: fn(u64) -> String) -> String {
    match number.value {
        Some(value) => format!("{} <small>{}</small>", show(value), number.known),
        None => "unknown".to_owned(),
    }
}

/// A text that is PromQL.
pub(super) fn code(text: &str) -> String {
    format!("<code>{}</code>", escaped(text))
}

/// The owner of a query: its tenant, its actor, its origin, and further names.
pub(super) fn who(tenant: &str, actor: &str, origin: &Origin, more: &[&str]) -> String {
    let mut html = format!("<b>{}</b> {}", escaped(tenant), escaped(actor));
    let texts = [
        ("dashboard", &origin.dashboard),
        ("panel", &origin.panel),
        ("user", &origin.user),
        ("rule", &origin.rule),
        ("program", &origin.user_agent),
    ];
    let of_actor = |name: &str, text: &str| {
        actor.strip_prefix(name).is_some_and(|rest| rest.strip_prefix(':') == Some(text))
    };
    let mut parts: Vec<String> = more.iter().map(|part| (*part).to_owned()).collect();
    for (name, text) in texts {
        if let Some(text) = text.as_deref().filter(|text| !of_actor(name, text)) {
            parts.push(format!("{name} {text}"));
        }
    }
    parts.extend(origin.client.map(|client| format!("from {client}")));
    if !parts.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(html, "<div><small>{}</small></div>", escaped(&parts.join(" · ")));
    }
    html
}

/// Names and values as a query string, for a button.
pub(super) fn params<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    Serializer::new(String::new())
        .extend_pairs(pairs.into_iter().filter(|(_, value)| !value.is_empty()))
        .finish()
}

/// The buttons that stop queries and make a rule of them; the script shows them and asks before anything is done.
/// `what` is the name of the queries.
pub(super) fn buttons(what: &str, stop: &str, block: &str) -> String {
    let (what, block) = (escaped(what), escaped(block));
    let mut html = String::from("<span class=\"acts\">");
    if !stop.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(
            html,
            "<button type=\"button\" class=\"danger\" data-stop=\"{}\" data-what=\"{what}\" \
             aria-label=\"Stop {what}\">Stop</button>",
            escaped(stop)
        );
    }
    let _ = write!(
        html,
        "<button type=\"button\" data-block=\"{block}\" data-what=\"{what}\" aria-label=\"Block {what}\">Block</button></span>"
    );
    html
}
