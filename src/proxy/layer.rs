//! The form that most layers of the stack have.

/// A layer without state of its own, and the service that it puts around another one.
macro_rules! layer {
    ($(#[$doc:meta])* $vis:vis $layer:ident => $service:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        $vis struct $layer;

        impl<S> ::tower::Layer<S> for $layer {
            type Service = $service<S>;

            fn layer(&self, inner: S) -> $service<S> {
                $service { inner }
            }
        }

        #[doc = concat!("Made by [`", stringify!($layer), "`].")]
        #[derive(Clone, Copy, Debug)]
        $vis struct $service<S> {
            inner: S,
        }
    };
}

pub(in crate::proxy) use layer;
