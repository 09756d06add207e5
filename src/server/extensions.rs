//! What belongs to a call and is not the transport's: values of any type, one of each.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::caught::caught;

type Value = Arc<dyn Any + Send + Sync>;

/// Values that interceptors, observers and handlers hand each other with a call, one of each type:
/// [`Call::extensions`](super::Call::extensions).
///
/// It begins empty, and needs no memory before the first value. All clones of the call share it, on whatever thread.
/// The values are dropped when the call has ended, every [`CallObserver`](super::CallObserver) was told, and every
/// interceptor had its [`after`](super::Interceptor::after), on the thread that did so last, which may be one that polls. A
/// stream that was detached keeps them so until it is finished or dropped, though its caller has left. So they should be cheap to drop. What is put in later is dropped
/// with the last clone of the call.
///
/// ```
/// use touchdown::{Call, Interceptor, Status};
///
/// struct User(String);
///
/// struct Authentication;
///
/// impl Interceptor for Authentication {
///     fn before(&self, call: &Call) -> Result<(), Status> {
///         let Some(token) = call.metadata().get("authorization") else {
///             return Err(Status::unauthenticated("a token is needed"));
///         };
///         call.extensions().insert(User(token.to_owned()));
///         Ok(())
///     }
/// }
///
/// /// In a handler:
/// fn greeting(call: &Call) -> Result<String, Status> {
///     let user = call.extensions().get::<User>();
///     let user = user.ok_or_else(|| Status::internal("nobody was authenticated"))?;
///     Ok(format!("Hello, {}", user.0))
/// }
/// ```
#[derive(Default)]
pub struct Extensions {
    // A list: there are a few of them, and a map would take more memory and time.
    values: Mutex<Vec<(TypeId, Value)>>,
}

impl Extensions {
    /// Puts a value in. Returns the one of the same type that was there before.
    pub fn insert<T: Send + Sync + 'static>(&self, value: T) -> Option<Arc<T>> {
        let (key, mut value) = (TypeId::of::<T>(), Arc::new(value) as Value);
        let mut values = self.values.lock();
        match values.iter_mut().find(|it| it.0 == key) {
            Some((_, place)) => std::mem::swap(place, &mut value),
            None => {
                values.push((key, value));
                return None;
            }
        }
        drop(values);
        value.downcast().ok()
    }

    /// The value of this type; `None` if there is none.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let key = TypeId::of::<T>();
        let values = self.values.lock();
        let value = values.iter().find(|it| it.0 == key)?.1.clone();
        drop(values);
        value.downcast().ok()
    }

    /// Takes the value of this type out; `None` if there is none.
    pub fn remove<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let key = TypeId::of::<T>();
        let mut values = self.values.lock();
        let place = values.iter().position(|it| it.0 == key)?;
        let (_, value) = values.swap_remove(place);
        drop(values);
        value.downcast().ok()
    }

    /// Drops all values. A panic of one of them is caught.
    pub(super) fn clear(&self) {
        // Dropped after the lock: what is dropped may look in here.
        let values = std::mem::take(&mut *self.values.lock());
        for value in values {
            caught("an extension of a call, as it was dropped,", || drop(value));
        }
    }
}

impl Drop for Extensions {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Extensions")
            .field("values", &self.values.lock().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_value_of_each_type() {
        let extensions = Extensions::default();
        assert!(extensions.get::<u32>().is_none());
        assert!(extensions.insert(1_u32).is_none());
        assert!(extensions.insert("one").is_none());
        assert_eq!(extensions.insert(2_u32).as_deref(), Some(&1));
        assert_eq!(extensions.get::<u32>().as_deref(), Some(&2));
        assert_eq!(extensions.remove::<u32>().as_deref(), Some(&2));
        assert!(extensions.get::<u32>().is_none());
        assert_eq!(extensions.get::<&str>().as_deref(), Some(&"one"));
    }

    #[test]
    fn what_is_dropped_may_look_in_and_may_panic() {
        struct Nosy(Arc<Extensions>, Arc<Mutex<u32>>);
        impl Drop for Nosy {
            fn drop(&mut self) {
                assert!(self.0.get::<u32>().is_none());
                *self.1.lock() += 1;
                panic!("dropped");
            }
        }
        struct Other(Nosy);
        let (extensions, dropped) = (Arc::new(Extensions::default()), Arc::default());
        extensions.insert(Nosy(extensions.clone(), Arc::clone(&dropped)));
        extensions.insert(Other(Nosy(extensions.clone(), Arc::clone(&dropped))));
        assert!(extensions
            .get::<Other>()
            .is_some_and(|it| *it.0 .1.lock() == 0));
        extensions.clear();
        assert_eq!(*dropped.lock(), 2);
    }
}
