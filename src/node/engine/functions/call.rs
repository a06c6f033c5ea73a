//! A call of a function.

use crate::{
    node::engine::error::EvalError,
    promql::{ast::NodeId, function::FunctionId},
};

/// A call of a function in the tree.
#[derive(Clone, Copy, Debug)]
pub(in crate::node::engine) struct Call<'c> {
    pub(in crate::node::engine) id: NodeId,
    pub(in crate::node::engine) func: FunctionId,
    pub(in crate::node::engine) args: &'c [NodeId],
}

impl Call<'_> {
    /// An argument, which the parser has checked to be there.
    pub(super) fn arg(&self, index: usize) -> Result<NodeId, EvalError> {
        let missing = || EvalError::Execution("an argument is missing".to_owned());
        self.args.get(index).copied().ok_or_else(missing)
    }
}
