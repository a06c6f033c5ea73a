//! Tower layers that put the limits before any service.
//!
//! ```text
//! CheckRateLayer ──▶ AdmitLayer ──▶ HoldLayer ──▶ a service
//! too often:         waits for      keeps the permit
//! refused            its turn       with the response
//! ```
//!
//! A request type states its demand by implementing [`RateLimited`] and [`Admissible`]. A request waits inside the
//! future of a call; dropping it leaves the queue. The service behind [`Admit`] is asked whether it is ready only when
//! the request may run: a place kept while waiting would be lost to others.
//!
//! [`HoldLayer`] keeps the permit with the response. A response that is streamed moves it into its body:
//!
//! ```
//! use std::{
//!     pin::Pin,
//!     task::{Context, Poll, ready},
//! };
//!
//! use bytes::Bytes;
//! use http::Response;
//! use http_body::{Body, Frame};
//! use weir::limit::{Actual, End, Permit, Permitted};
//!
//! /// Gives its permit back at its last frame, or when it is dropped.
//! struct Streamed<B> {
//!     body: B,
//!     permit: Option<Permit>,
//! }
//!
//! impl<B: Body<Data = Bytes> + Unpin> Body for Streamed<B> {
//!     type Data = Bytes;
//!     type Error = B::Error;
//!
//!     fn poll_frame(
//!         mut self: Pin<&mut Self>,
//!         cx: &mut Context<'_>,
//!     ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
//!         let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
//!         if frame.is_none()
//!             && let Some(permit) = self.permit.take()
//!         {
//!             permit.settle(Actual { samples: None, end: End::Answered });
//!         }
//!         Poll::Ready(frame)
//!     }
//! }
//!
//! /// Stands above [`HoldLayer`]: `.map_response(streamed).layer(HoldLayer).service(…)`.
//! fn streamed<B>(response: Permitted<Response<B>>) -> Response<Streamed<B>> {
//!     let (response, permit) = response.into_parts();
//!     response.map(|body| Streamed { body, permit: Some(permit) })
//! }
//! # let _ = streamed::<http_body_util::Empty<Bytes>>;
//! ```

mod admit;
mod hold;
mod rate;
#[cfg(test)]
mod tests;

pub use admit::{Admissible, Admit, AdmitFuture, AdmitLayer};
pub use hold::{Hold, HoldFuture, HoldLayer, Permitted};
pub use rate::{CheckRate, CheckRateFuture, CheckRateLayer, RateLimited};
