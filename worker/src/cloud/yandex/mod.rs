//! Yandex Cloud: the temporary cluster that load comes from.
