//! OpenAPI 3.1 of an API, from the table that its routes are made of.

use serde_json::{Map, Value, json};

/// One method of one path.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// `get`, `post`, `put` or `delete`.
    pub method: &'static str,
    /// The path, with names in braces.
    pub path: &'static str,
    /// For people, a line.
    pub summary: &'static str,
    /// Of the path and of the query string; of a form too, where the method is `post` and there is no other body.
    pub parameters: &'static [Parameter],
    /// The media type of the body, if it takes one that is no form.
    pub body: Option<&'static str>,
    /// The media type of a good answer.
    pub answer: &'static str,
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name; one that is in the path is a part of it.
    pub name: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// How it is written.
    pub form: Form,
    /// For people.
    pub description: &'static str,
}

/// How the value of a parameter is written.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Any text.
    Text,
    /// Several times, any text.
    Texts,
    /// A whole number from 0 on.
    Number,
    /// RFC 3339, or Unix seconds.
    Time,
    /// Seconds, or `5m`.
    Duration,
    /// One of these words, the first where it is missing.
    OneOf(&'static [&'static str]),
}

/// JSON in the shape of Prometheus.
pub const JSON: &str = "application/json";
/// Plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// A parameter that may be left out.
pub const fn optional(name: &'static str, form: Form, description: &'static str) -> Parameter {
    Parameter { name, required: false, form, description }
}

/// A parameter that must be there.
pub const fn required(name: &'static str, form: Form, description: &'static str) -> Parameter {
    Parameter { name, required: true, form, description }
}

/// The document of an API.
pub fn document(title: &str, description: &str, operations: impl IntoIterator<Item = Operation>) -> Value {
    let mut paths = Map::new();
    for operation in operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(&operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": title, "description": description, "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["status", "errorType", "error"],
                    "properties": {
                        "status": {"const": "error"},
                        "errorType": {"type": "string"},
                        "error": {"type": "string", "description": "For people: what is wrong, and what to do."},
                        "fix": {"type": "object", "description": "Parameters of a query that passes in place of one that was refused."},
                    },
                },
                "Success": {
                    "type": "object",
                    "required": ["status"],
                    "properties": {
                        "status": {"const": "success"},
                        "data": {},
                        "warnings": {"type": "array", "items": {"type": "string"}},
                    },
                },
            },
            "responses": {
                "Error": {
                    "description": "It was refused or failed.",
                    "headers": {"Weir-Error": {"description": "The id of the error, which docs/errors.md explains.", "schema": {"type": "string"}}},
                    "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
                },
            },
        },
    })
}

fn described(operation: &Operation) -> Value {
    let Operation { method, path, summary, parameters, body, answer } = *operation;
    let in_path = |parameter: &Parameter| path.contains(&format!("{{{}}}", parameter.name));
    let parameter = |one: &Parameter| {
        let place = if in_path(one) { "path" } else { "query" };
        json!({"name": one.name, "in": place, "required": one.required || in_path(one), "description": one.description, "schema": schema(one.form)})
    };
    let schema_of = |media: &str| {
        if media == JSON {
            json!({"$ref": "#/components/schemas/Success"})
        } else {
            json!({"type": "string"})
        }
    };
    let words = path
        .split(['/', '{', '}', '-', '.'])
        .filter(|word| !word.is_empty() && !matches!(*word, "api" | "v1"));
    let id = words.fold(method.to_owned(), |id, word| id + "_" + word);
    let mut described = json!({
        "operationId": id,
        "summary": summary,
        "parameters": parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": {
            "200": {"description": "Done.", "content": {answer: {"schema": schema_of(answer)}}},
            "default": {"$ref": "#/components/responses/Error"},
        },
    });
    if let Some(media) = body {
        described["requestBody"] = json!({"required": true, "content": {media: {"schema": {}}}});
    } else if method == "post" && !parameters.is_empty() {
        let fields = parameters.iter().filter(|one| !in_path(one));
        let fields: Map<_, _> = fields.map(|one| (one.name.to_owned(), schema(one.form))).collect();
        let form = json!({"schema": {"type": "object", "properties": fields}});
        described["requestBody"] =
            json!({"required": false, "content": {"application/x-www-form-urlencoded": form}});
    }
    described
}

fn schema(form: Form) -> Value {
    match form {
        Form::Text => json!({"type": "string"}),
        Form::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Form::Number => json!({"type": "integer", "minimum": 0}),
        Form::Time => json!({"type": "string", "description": "RFC 3339, or Unix seconds"}),
        Form::Duration => json!({"type": "string", "description": "seconds, or a duration such as 5m"}),
        Form::OneOf(words) => json!({"enum": words, "default": words.first()}),
    }
}
